# Ends the children of a host that was killed. Its input is the host's: a line "+ pid:start" for a child
# that lives, "- pid:start" for one that does not, "bye" when all is over, "over" when some live that the
# host has forgotten. The end of the input without either says that the host is gone. What the host started
# has $1 in its environment.
trap '' HUP INT QUIT TERM PIPE USR1 USR2 TSTP TTIN TTOU
# What the host has left open to its children is not kept open here.
for open in 3 4 5 6 7 8 9; do
    eval "exec $open>&-"
done
watched=' '
turns=1000
while read -r sign what; do
    case $sign in
    +) watched="$watched$what " ;;
    -)
        case $watched in
        *" $what "*) watched="${watched%%" $what "*} ${watched#*" $what "}" ;;
        esac
        ;;
    bye) exit 0 ;;
    over) turns=0 && break ;;
    esac
done

# Who is found is stopped first: it starts nobody, and its own children keep it as their parent, while
# the others are looked for.
found=' '
fresh=
add() {
    case $found in
    *" $1 "*) ;;
    *)
        kill -STOP "$1" && found="$found$1 " && fresh="$fresh $1"
        ;;
    esac
}

# Takes what the kernel says of a process apart. The name, which may be anything, ends with the last ")".
parse() {
    pid=${1%% *}
    set -- ${1##*") "}
    state=$1 parent=$2 group=$3 session=$4 start=${20}
}

# Finds the marked, and those whose parent, group or session is one that was found. What has ended is no
# concern of ours.
look() {
    for file in $(set +f && grep -lF "$mark" /proc/[0-9]*/environ); do
        file=${file#/proc/}
        add "${file%/environ}"
    done
    all=$(set +f && cat /proc/[0-9]*/stat)
    [ -n "$all" ] || all=$(set +f && without_cat)
    IFS=$newline
    for line in $all; do
        IFS=$blank
        parse "$line"
        case $found in
        *" $parent "* | *" $group "* | *" $session "*) [ "$state" = Z ] || add "$pid" ;;
        esac
    done
    IFS=$blank
}

# The same, slowly.
without_cat() {
    for file in /proc/[0-9]*/stat; do
        read -r line <"$file" && echo "$line"
    done
}

newline='
'
blank=$IFS
set -f
mark=$1
# A host that is killed closes our input first, and is gone a moment later, when we have another parent. The
# kernel then sends SIGHUP to groups that have lost it and have somebody stopped in them: who dies of that
# would leave children that nobody can tell any more. So none is stopped before.
while [ $turns -gt 0 ]; do
    turns=$((turns - 1))
    read -r line <"/proc/$$/stat" || break
    parse "$line"
    [ "$parent" = "$PPID" ] || break
done
for one in $watched; do
    pid=${one%:*}
    read -r line <"/proc/$pid/stat" || continue
    parse "$line"
    # The same number with another start is somebody else.
    if [ "$start" = "${one#*:}" ]; then
        kill -STOP "-$pid"
        add "$pid"
    fi
done
# Once nobody new is found, all are killed; and then one more look is taken, for whoever was being
# started when the host was killed.
looks=2
while [ $looks -gt 0 ]; do
    before=$fresh
    look
    if [ "$fresh" = "$before" ]; then
        [ -z "$fresh" ] || kill -KILL $fresh
        fresh=
        looks=$((looks - 1))
    fi
done
