#!/usr/bin/env bash
# musc-mpi on 1, 2, 3 and 5 processes, and on two and three hosts, against musc-run on one: the same scores.csv, byte for byte;
# a process that is killed; lists that differ. Installs Open MPI where there is none.
#
#   tools/mpi/check.sh [--without-hosts]
#
# Hosts are network namespaces with a bridge between them, so that numbers go through sockets. Making them takes root; where
# that cannot be had, --without-hosts says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
hosts=yes
for word in "$@"; do
    case "$word" in
    --without-hosts) hosts=no ;;
    *) echo "check.sh: found $word, expected --without-hosts or nothing" >&2 && exit 2 ;;
    esac
done

if ! command -v mpirun >/dev/null || ! command -v mpicc >/dev/null || ! ls /usr/lib/llvm*/lib/libclang*.so* >/dev/null 2>&1; then
    (apt-get update && apt-get install -y libopenmpi-dev openmpi-bin libclang-dev) >/dev/null
fi
# In one build: apart, what both link would be built twice.
cargo build --locked --quiet -p musc-mpi -p musc-cli --bin musc-mpi --bin musc-run
cargo test --locked --quiet -p musc-mpi
bin="${CARGO_TARGET_DIR:-$PWD/target}/debug"

work="$(mktemp -d)"
namespaces=()
clean() {
    for name in "${namespaces[@]}"; do ip netns delete "$name" 2>/dev/null || true; done
    ip link delete muscmpi0 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT

fail() {
    echo "FAILED: $*" >&2
    [ -f "$work/log" ] && tail -40 "$work/log" >&2
    exit 1
}

python3 tools/mpi/images.py "$work/images" 120
mpirun=(mpirun --allow-run-as-root --oversubscribe)
at=(--device cpu --threads 1 --vis false --report false --overwrite)
options=(--img-resize 70 --quiet "${at[@]}")
larger=(--img-resize 112 --quiet "${at[@]}")
store=(--store "$work/store")

"$bin/musc-run" "$work/images" --references all "${options[@]}" --cache "$work/store" --output-dir "$work/one" >"$work/log" 2>&1
expected="$work/one/folder/images/scores.csv"
[ "$(wc -l <"$expected")" = 121 ] || fail "scores of one process"

# same WHAT FOLDER
same() {
    cmp "$expected" "$2/folder/images/scores.csv" || fail "$1: other scores than one process has"
    echo "$1: the scores of one process"
}

for ranks in 1 2 3 5; do
    for table in 1G 1M; do
        out="$work/out-$ranks-$table"
        "${mpirun[@]}" -n "$ranks" "$bin/musc-mpi" "$work/images" "${options[@]}" "${store[@]}" --max-table-memory "$table" \
            --output-dir "$out" >"$work/log" 2>&1 || fail "$ranks processes"
        same "$ranks processes, tables of $table" "$out"
    done
done
# Tokens made by the processes themselves, and what makes them differ left out of the comparison.
"${mpirun[@]}" -n 3 "$bin/musc-mpi" "$work/images" "${options[@]}" --ignore-border 7 --output-dir "$work/border" >"$work/log" 2>&1 ||
    fail "3 processes, a border"
"$bin/musc-run" "$work/images" --references all "${options[@]}" --ignore-border 7 --output-dir "$work/border-one" >"$work/log" 2>&1
cmp "$work/border/folder/images/scores.csv" "$work/border-one/folder/images/scores.csv" || fail "a border: other scores"
cmp -s "$expected" "$work/border-one/folder/images/scores.csv" && fail "a border changes nothing"
echo "3 processes, patches left out: the scores of one process"

# A process that is killed while it makes tokens ends the job; nothing is half written, and the store is gone on with.
"${mpirun[@]}" -n 3 "$bin/musc-mpi" "$work/images" "${larger[@]}" --store "$work/killed" --output-dir "$work/resumed" \
    >"$work/log" 2>&1 &
job=$!
for _ in $(seq 400); do
    [ "$(find "$work/killed" -name '*.safetensors' 2>/dev/null | wc -l)" -ge 16 ] && break
    sleep 0.05
done
victim="$(pgrep -P "$job" -f musc-mpi | tail -1 || true)"
[ -n "$victim" ] || fail "no process to kill"
kill -9 "$victim"
code=0
wait "$job" || code=$?
[ "$code" -ne 0 ] || fail "a process was killed and the job's exit code is 0"
grep -q "signal 9" "$work/log" || fail "no word of the process that was killed"
[ ! -e "$work/resumed/folder/images/scores.csv" ] || fail "scores of a job that was killed"
[ -z "$(find "$work/resumed" -type f 2>/dev/null)" ] || fail "files of a job that was killed: $(find "$work/resumed" -type f)"
kept="$(find "$work/killed" -name '*.safetensors' | wc -l)"
[ "$kept" -lt 120 ] || fail "killed too late: all tokens were kept"
"${mpirun[@]}" -n 2 "$bin/musc-mpi" "$work/images" "${larger[@]}" --store "$work/killed" --output-dir "$work/resumed" \
    >"$work/log" 2>&1 || fail "the job after the one that was killed"
"$bin/musc-run" "$work/images" --references all "${larger[@]}" --cache "$work/killed" --output-dir "$work/whole" \
    >"$work/log" 2>&1
cmp "$work/resumed/folder/images/scores.csv" "$work/whole/folder/images/scores.csv" || fail "resumed: other scores"
echo "killed with tokens of $kept images kept, exit code $code; gone on to the scores of one process"

# SIGTERM ends all.
"${mpirun[@]}" -n 2 "$bin/musc-mpi" "$work/images" "${larger[@]}" --output-dir "$work/stopped" >"$work/log" 2>&1 &
job=$!
sleep 2
kill -TERM "$job"
code=0
wait "$job" || code=$?
[ "$code" -ne 0 ] || fail "SIGTERM and exit code 0"
[ -z "$(find "$work/stopped" -name 'scores*' 2>/dev/null)" ] || fail "scores of a job that was stopped"
echo "SIGTERM: exit code $code, nothing half written"

# A process with another list of images is an error by name.
python3 tools/mpi/images.py "$work/other/images" 119
cp "$work/other/images/0000.png" "$work/other/images/0119.PNG.png"
cat >"$work/differs.sh" <<'SCRIPT'
#!/usr/bin/env bash
folder="$1/images"
[ "$OMPI_COMM_WORLD_RANK" = 1 ] && folder="$1/other/images"
shift
exec "$0.bin" "$folder" "$@"
SCRIPT
chmod +x "$work/differs.sh"
ln -s "$bin/musc-mpi" "$work/differs.sh.bin"
code=0
"${mpirun[@]}" -n 3 "$work/differs.sh" "$work" "${options[@]}" --output-dir "$work/differs" >"$work/log" 2>&1 || code=$?
[ "$code" = 2 ] || fail "another list of images: exit code $code, expected 2"
grep -q "rank 1 of 3 .*images and settings of a process: found \`0119.PNG.png" "$work/log" || fail "no word of the image that differs"
echo "another list of images: told by rank and image, exit code 2"
code=0
"${mpirun[@]}" -n 2 "$bin/musc-mpi" "$work/images" "${options[@]}" --references 20 --output-dir "$work/subsets" >"$work/log" 2>&1 || code=$?
[ "$code" = 2 ] && [ "$(grep -c -e "--references: found" "$work/log")" = 1 ] || fail "subsets: exit code $code, expected 2, said once"
echo "subsets: refused once, exit code 2"

if [ "$hosts" = no ]; then
    echo "hosts: left out, as was asked for"
    exit 0
fi
# Hosts: namespaces on a bridge, each with a name of its own.
command -v ip >/dev/null || (apt-get update && apt-get install -y iproute2) >/dev/null
ip link add muscmpi0 type bridge 2>"$work/log" || fail "no bridge can be made here; --without-hosts leaves this part out"
ip link set muscmpi0 up
for host in 1 2 3; do
    name="muscmpi$host"
    ip netns add "$name" 2>"$work/log" || fail "no network namespace can be made here; --without-hosts leaves this part out"
    namespaces+=("$name")
    ip link add "$name" type veth peer name eth0 netns "$name"
    ip link set "$name" master muscmpi0 up
    ip -n "$name" addr add "10.77.0.$host/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" link set lo up
done
cat >"$work/agent.sh" <<'SCRIPT'
#!/usr/bin/env bash
# As ssh: HOST COMMAND…
number="${1##*.}"
shift
exec ip netns exec "muscmpi$number" unshare -u bash -c 'hostname "$1"; shift; eval "$*"' - "muscmpi$number" "$@"
SCRIPT
chmod +x "$work/agent.sh"
for count in 2 3; do
    list="$(seq -f '10.77.0.%g:2' -s , 1 "$count")"
    out="$work/hosts-$count"
    ip netns exec muscmpi1 unshare -u bash -c 'hostname muscmpi1; exec "$@"' - \
        "${mpirun[@]}" --host "$list" -n $((count + 1)) --map-by node --mca plm_rsh_agent "$work/agent.sh" --mca btl tcp,self \
        --mca pml ob1 --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 \
        "$bin/musc-mpi" "$work/images" --img-resize 70 "${at[@]}" "${store[@]}" --output-dir "$out" >"$work/log" 2>&1 ||
        fail "$count hosts"
    seen="$(grep -o 'on muscmpi[0-9]*' "$work/log" | sort -u | wc -l)"
    [ "$seen" = "$count" ] || fail "$count hosts: processes on $seen"
    same "$((count + 1)) processes on $count hosts, by sockets" "$out"
done
