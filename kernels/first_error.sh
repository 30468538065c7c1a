#!/bin/sh
# Runs a compiler. If it fails, writes its first error into FILE; the package later shows it as the reason for missing
# kernels. Usage:
#     sh first_error.sh FILE COMPILER OPTIONS ...
file=$1
shift
said=$(LC_ALL=C "$@" 2>&1)
status=$?
[ -z "$said" ] || printf '%s\n' "$said" >&2
[ $status -eq 0 ] && exit
reason=
while IFS= read -r line; do
    case $line in *[Ee]rror*) reason=$line && break ;; esac
    reason=${reason:-$line}
done <<END
$said
END
printf '%s did not compile them: %s\n' "$1" "${reason:-its exit status is $status}" >"$file"
exit $status
