# Ends the children of a host that was killed. Its input is the host's: a line "+ pid:start" for a child
# that lives, "- pid:start" for one that does not, "bye" when all is over, "over" when some live that the
# host has forgotten. The end of the input without either says that the host is gone. What the host started
# has $1 in its environment.
trap '' HUP INT QUIT TERM PIPE USR1 USR2 TSTP TTIN TTOU
# What the host has left open to its children is not kept open here.
for open in 3 4 5 6 7 8 9; do
    eval "exec $open>&-"
done
set -f
mark=$1
newline='
'
blank=$IFS

# Takes what the kernel says of a process apart. The name, which may be anything, ends with the last ")".
parse() {
    pid=${1%% *}
    set -- ${1##*") "}
    state=$1 parent=$2 group=$3 session=$4 start=${20}
}

# Succeeds if who was watched as "pid:start" is there. The same number with another start is somebody else. A name may
# have line ends in it.
lives() {
    line=
    while read -r part; do
        line="${line:+$line }$part"
    done <"/proc/${1%:*}/stat"
    parse "$line"
    [ "$start" = "${1#*:}" ]
}

# Forgets who is gone. To take each out of a long text at its end would cost as much as the text is long, squared.
forget() {
    all=$watched watched=' ' living=0 gone=0
    for one in $all; do
        lives "$one" && watched="$watched$one " living=$((living + 1))
    done
}

watched=' '
living=0
gone=0
turns=1000
while read -r sign what; do
    case $sign in
    +) watched="$watched$what " living=$((living + 1)) ;;
    -)
        # Who is gone harms nobody who stands there: now and then is enough.
        gone=$((gone + 1))
        [ $((2 * gone)) -lt $((living + 100)) ] || forget
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
    if lives "$one"; then
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
