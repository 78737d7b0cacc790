"""Files to recordings: cards of public data, BIDS derivatives, arrays, the store.

`STUDIES` is the table of data sets that are known by name: name -> "module:CARD:function". The function takes the
folder of the files and settings as keywords and returns a `core.study.Study`. Nothing is imported until it is asked
for.
"""

from __future__ import annotations

STUDIES: dict[str, str] = {
    "cc2017": "neuroreel.datasets.cc2017:CARD:cc2017_study",
    "haxby2001-slice": "neuroreel.datasets.haxby2001:CARD:haxby2001_study",
    "szinte2024": "neuroreel.datasets.szinte2024:CARD:szinte2024_study",
}
