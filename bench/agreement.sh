#!/usr/bin/env bash
# Does the GPU give the CPU's numbers? A small random model in f32 with --exact, and in bf16 as users run it.
#   bench/agreement.sh "LOWBEAM COMMAND" VOCAB.gguf FULL_SIZE_MODELS.py LOAD_DIR WORK_DIR      (PYTHONPATH: gguf-py)
set -euo pipefail
lowbeam=$1 vocab=$2 models=$3 load=$4 work=$5
mkdir -p "$work"
python3 "$models" "$vocab" "$work/llm-bf16.gguf" "$work/mmproj-bf16.gguf" --small
python3 - "$work" <<'PY'
"""The same values in f32: bf16 widens without loss."""
import sys
import gguf
import numpy as np

for part in ("llm", "mmproj"):
    reader = gguf.GGUFReader(f"{sys.argv[1]}/{part}-bf16.gguf")
    writer = gguf.GGUFWriter(f"{sys.argv[1]}/{part}-f32.gguf", reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(field.name, field.contents())
        else:
            writer.add_key_value(field.name, field.contents(), field.types[0])
    for t in reader.tensors:
        shape = [int(n) for n in reversed(t.shape)]
        if t.tensor_type == gguf.GGMLQuantizationType.BF16:
            values = (t.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.array(t.data, np.float32)
        writer.add_tensor(t.name, values.reshape(shape))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
PY
for device in cpu cuda0; do
    for type in f32 bf16; do
        exact=; [ $type = bf16 ] || exact=--exact
        rm -f "$work/$device-$type".{csv,db}
        $lowbeam answer "$load/questions.json" --samples 3 --model "$work/llm-$type.gguf" --mmproj "$work/mmproj-$type.gguf" \
            --max-tiles 2 --max-new-tokens 3 --device $device $exact --out "$work/$device-$type.csv" \
            --dump "$work/$device-$type" > "$work/log" 2>&1 || [ $? = 3 ] || { cat "$work/log"; exit 1; }
    done
done
python3 - "$work" <<'PY'
import sys
import numpy as np

failed = False
for a, b, limit in (("cpu-f32", "cuda0-f32", 1e-3), ("cpu-f32", "cpu-bf16", 3e-2), ("cpu-f32", "cuda0-bf16", 3e-2)):
    for name in ("video_0/embeddings", "v0q0/logits", "v0q1/logits", "v0q2/logits"):
        x, y = (np.load(f"{sys.argv[1]}/{d}/{name}.npy") for d in (a, b))
        error = np.linalg.norm(x - y) / np.linalg.norm(x)
        failed |= not error <= limit
        print(f"{a} against {b}: {name} {x.shape} relative {error:.2e} (limit {limit:g})")
sys.exit(failed)
PY
