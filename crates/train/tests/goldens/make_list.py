"""Makes list.parquet: six pictures with captions as the reference's recipe for v2.1 lists them, by pyarrow.

    python make_list.py         # pyarrow 26.0.1
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

table = pa.table({
    "image_path": [f"photos/{number // 3}/{number}.png" for number in range(6)],
    "width": pa.array([40] * 6, pa.int32()),
    "llava_long": pa.array([f"long {number}" for number in range(6)], pa.binary()),
    "llava_short": [f"number {number}" if number % 2 == 0 else None for number in range(6)],
})
codecs = {"image_path": "snappy", "width": "none", "llava_long": "snappy", "llava_short": "zstd"}
pq.write_table(table, Path(__file__).parent / "list.parquet", compression=codecs, row_group_size=4)
