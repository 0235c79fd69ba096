#!/usr/bin/env bash
# run.sh SECONDS [TARGET...]: fuzzes each target for so long, one after the other, and says how often it ran and what it
# found. Needs a nightly compiler (HYDRANT_NIGHTLY names another than `nightly`); what is found lies in artifacts/TARGET.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?seconds}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(put config log ledger batch)

# As cargo-fuzz builds, without a sanitizer: there is no unsafe code here to look for.
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks"
export RUSTFLAGS=$flags
export CARGO_TARGET_DIR=${HYDRANT_FUZZ_TARGET_DIR:-${HYDRANT_CACHE:-$HOME/.cache/hydrant}/fuzz}
host=$(rustc -vV | sed -n 's/^host: //p')
cargo "+${HYDRANT_NIGHTLY:-nightly}" build --release --locked --bins --target "$host"
[ "$seconds" -gt 0 ] || exit 0

status=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -max_len=32768 -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=1 -artifact_prefix="artifacts/$target/" "corpus/$target" >"artifacts/$target.log" 2>&1 || status=1
    printf '%s: ' "$target"
    grep -E 'stat::number_of_executed_units|stat::peak_rss_mb' "artifacts/$target.log" | awk '{printf "%s %s, ", $1, $2}'
    grep -E 'cov: ' "artifacts/$target.log" | tail -1 | grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' || true
    find "artifacts/$target" -type f
done
exit $status
