#!/usr/bin/env bash
# The C interface as its users meet it: installed, found by pkg-config, linked in both ways by a C and a C++ compiler; every error path
# under valgrind and under AddressSanitizer, without a leak; and scores that are those of musc-run to the last bit.
set -euo pipefail
cd "$(dirname "$0")/../.."
missing=()
for program in gcc g++ pkg-config valgrind; do
    command -v "$program" >/dev/null || missing+=("$program")
done
# valgrind knows the loader's and the C library's allocations by their symbols.
[ ! -f /etc/debian_version ] || dpkg -s libc6-dbg >/dev/null 2>&1 || missing+=(libc6-dbg)
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}"
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi

step() { printf -- '-- %s (%s s)\n' "$*" "$SECONDS"; }
export CARGO_TERM_COLOR=never
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

step "tests in Rust, and the header against the sources"
cargo test --locked --quiet -p musc-c

step "both libraries, and the symbols that they show"
# With the programs, so that the library under both is built once.
cargo build --locked --quiet -p musc-cli -p musc-c
bindings/c/install.sh "$out/prefix" debug
nm -D --defined-only "$out/prefix/lib/libmusc.so" | awk '{print $3}' | sort >"$out/shown"
sed 's|//.*||' bindings/c/include/musc.h | grep -oE '\bmusc_[a-z_]+\(' | tr -d '(' | sort -u >"$out/declared"
diff "$out/declared" "$out/shown" || { echo "libmusc.so does not show the header's functions and no others" >&2; exit 1; }
[ "$(wc -l <"$out/shown")" -gt 50 ]

step "C99 and C++17, shared and static"
export PKG_CONFIG_PATH=$out/prefix/lib/pkgconfig
strict="-Wall -Wextra -Wpedantic -Werror -g -O1"
read -ra flags <<<"$(pkg-config --cflags musc)"
read -ra shared <<<"$(pkg-config --libs musc) -Wl,-rpath,$out/prefix/lib"
read -ra private <<<"$(pkg-config --static --libs musc | sed "s|-L[^ ]*||; s|-lmusc\b||")"
static=("$out/prefix/lib/libmusc.a" "${private[@]}")
c_files=bindings/c/tests/c/errors.c
compile() { # the compiler with its flags, then what to link: NAME KIND SOURCE COMMAND...
    local name=$1 kind=$2 source=$3
    shift 3
    local link=("${shared[@]}")
    [ "$kind" = shared ] || link=("${static[@]}")
    "$@" $strict "${flags[@]}" "$source" -x none "${link[@]}" -o "$out/$name.$kind"
}
for kind in shared static; do
    compile inspect $kind bindings/c/examples/inspect.c gcc -std=c99 -x c
    compile bank $kind bindings/c/examples/bank.cpp g++ -std=c++17 -x c++
    compile errors $kind $c_files gcc -std=c99 -x c
    compile errorsxx $kind $c_files g++ -std=c++17 -x c++
    compile errors-asan $kind $c_files gcc -std=c99 -fsanitize=address -x c
    compile inspect-asan $kind bindings/c/examples/inspect.c gcc -std=c99 -fsanitize=address -x c
    compile bank-asan $kind bindings/c/examples/bank.cpp g++ -std=c++17 -fsanitize=address -x c++
done

# Few images and a small backbone: valgrind takes a hundred times as long.
weights=tests/data/dinov2_tiny_weights.safetensors
mkdir -p "$out/few" "$out/good"
for image in good/textile_0001 good/textile_0002 good/textile_0003 defect/textile_0001; do
    cp "assets/textile/$image.jpg" "$out/few/${image//\//_}.jpg"
done
cp "$out"/few/good_* "$out/good/"
errors() { # WRAPPER... PROGRAM
    rm -rf "$out/scratch"
    mkdir "$out/scratch"
    "$@" "$out/few" "$weights" "$out/scratch" | tee "$out/checks"
    # Not a program that looked at nothing.
    grep -qE '^[5-9][0-9]{2} checks, 0 faults$' "$out/checks"
}
bank() { # WRAPPER... PROGRAM
    SIDE=70 WEIGHTS=$weights "$@" "$out/good" "$out/part.bank.safetensors" "$out/few/defect_textile_0001.jpg" "$out/few/good_textile_0002.jpg"
}
inspect() { # WRAPPER... PROGRAM
    "$@" "$out/few" 70 "$weights" 2>"$out/steps" || { cat "$out/steps" >&2; return 1; }
    grep -q '^scoring: ' "$out/steps"
}

step "every error path, and the examples"
for kind in shared static; do
    errors "$out/errors.$kind"
    errors "$out/errorsxx.$kind"
    inspect "$out/inspect.$kind" | tee "$out/inspect.$kind.csv"
    bank "$out/bank.$kind"
done
cmp "$out/inspect.shared.csv" "$out/inspect.static.csv"

step "scores against musc-run's"
target/debug/musc-run "$out/few" --img-resize 70 --weights "$weights" --device cpu --output-dir "$out/run" --vis False --quiet >/dev/null
python3 tools/c/compare.py "$out/inspect.shared.csv" "$(find "$out/run" -name scores.csv)"
if [ -f weights/dinov2_vits14.safetensors ]; then
    # The weights inside the library, at their usual size, on all the sample images.
    "$out/inspect.shared" assets/textile 224 2>/dev/null >"$out/textile.csv"
    target/debug/musc-run assets/textile --img-resize 224 --device cpu --output-dir "$out/textile" --vis False --quiet >/dev/null
    python3 tools/c/compare.py "$out/textile.csv" "$(find "$out/textile" -name scores.csv)"
fi

step "AddressSanitizer, with its look for leaks"
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99
for kind in shared static; do
    errors "$out/errors-asan.$kind"
    inspect "$out/inspect-asan.$kind" | cmp - "$out/inspect.shared.csv"
    bank "$out/bank-asan.$kind" >/dev/null
done

step "valgrind"
memcheck=(valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,possible --show-leak-kinds=definite,possible
    --suppressions=bindings/c/tests/c/valgrind.supp)
errors "${memcheck[@]}" "$out/errors.static"
inspect "${memcheck[@]}" "$out/inspect.shared" >/dev/null
bank "${memcheck[@]}" "$out/bank.shared"

step "done"
