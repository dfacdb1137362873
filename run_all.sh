#!/usr/bin/env bash
# Run the whole study, or its tests: ./run_all.sh --help
#
# 1. check the options with the system's Python, before anything is installed
# 2. set up .venv with the versions of constraints.txt, once
# 3. hand over to audioxai_utils/run/command_line.py
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
venv="$root/.venv"
stamp="$venv/audioxai-complete"    # the place and the pins of a finished set-up
unfinished="$venv/audioxai-unfinished"
log="$venv/audioxai-install.log"
errors="$venv/audioxai-install.err"

say() { printf 'run_all.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 2; }

find_python() {
    local candidate
    for candidate in ${AUDIOXAI_PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    fail "needs Python 3.11 or later, and found none (looked for: ${AUDIOXAI_PYTHON:-python3.11, .. python3});" \
         "install one, or name it: AUDIOXAI_PYTHON=/path/to/python ./run_all.sh"
}

pins() { printf '%s\n' "$root"; cat "$root/constraints.txt" "$root/pyproject.toml" | cksum; }

is_set_up() { [[ -f $stamp && -x $venv/bin/python && "$(<"$stamp")" == "$(pins)" ]]; }

install_failed() {
    local reason
    reason="$(grep -v '^[[:space:]]*$' "$errors" | tail -n 3 || true)"  # which of them says why, no program knows
    cat -- "$errors" >>"$log"
    say "set-up failed: ${reason:-see the end of the log}"
    say "the whole log: $log   (the next run starts the set-up afresh)"
    exit 1
}

set_up() {
    local python="$1" started=$SECONDS
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv or ensurepip; on Debian or Ubuntu: apt install python3-venv"
    # What an interrupted set-up or another folder's leaves behind cannot be trusted.
    if [[ -e $unfinished ]] || { [[ -f $stamp ]] && [[ "$(head -n 1 "$stamp")" != "$root" ]]; } ||
        { [[ -d $venv ]] && ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; }; then
        rm -rf -- "$venv"
    fi
    mkdir -p "$venv" || fail "cannot write to $root"
    touch "$unfinished"
    rm -f -- "$stamp"
    say "setting up $venv (once; some minutes and 6 GB, mostly torch) ..."
    [[ -x $venv/bin/python ]] || "$python" -m venv "$venv" >"$log" 2>"$errors" || install_failed
    "$venv/bin/python" - "$root/pyproject.toml" >"$venv/requirements.txt" <<'PYTHON'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["test"]))
PYTHON
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile --progress-bar off \
        -c "$root/constraints.txt" -r "$venv/requirements.txt" >>"$log" 2>"$errors" || install_failed
    # The project itself by a path file: nothing to build, and edits take effect at once.
    "$venv/bin/python" -c 'import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "audioxai.pth").write_text(sys.argv[1] + "\n")' "$root"
    "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null 2>&1 || true  # some vendored files are templates
    pins >"$stamp.new"
    mv -- "$stamp.new" "$stamp"
    rm -f -- "$unfinished"
    say "set up in $((SECONDS - started)) s"
}

cli=(-P -m audioxai_utils.run.command_line)
export PYTHONPATH="$root"
unset PYTHONHOME PYTHONINSPECT PYTHONOPTIMIZE PYTHONSTARTUP PYTHONWARNINGS  # set for another Python
if ! is_set_up; then
    python="$(find_python)"
    "$python" -B "${cli[@]}" --check-only "$@" || exit $?
    for argument in "$@"; do  # help needs no set-up
        [[ $argument == --test ]] && break
        if [[ $argument == --help || $argument == -h ]]; then exit 0; fi
    done
    if command -v flock >/dev/null; then  # two first runs at once: the second waits
        exec 9<"$root/constraints.txt"
        flock -n 9 || { say "waiting for another set-up of $venv ..."; flock 9; }
    fi
    is_set_up || set_up "$python"
    exec 9<&-
fi
exec "$venv/bin/python" "${cli[@]}" "$@"
