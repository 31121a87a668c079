"""All attacks: each takes random numbers and a folder, and raises if something was lost, was run, or fell over."""

from .calls import wrong_call, wrong_command
from .disk import disk_fault
from .files import bit_flip, damaged_data, damaged_file, odd_value
from .kills import kill, kill_in_a_sweep, kill_of_a_rank, kill_while_compiled, kill_while_streaming

ATTACKS = {                                     # {attack: how often in full}, the quick ones first
    wrong_call: 1500, wrong_command: 500, odd_value: 2000, damaged_data: 4000, kill_of_a_rank: 20, kill_in_a_sweep: 20,
    kill_while_compiled: 20, kill_while_streaming: 30, kill: 160, bit_flip: 2000, damaged_file: 4000, disk_fault: 200}
