# Changes one variable of a file with lines `NAME=value`, and no other line. $OP is `set` or `del`;
# $AT is the variable; $VALUE is its value. $BACK is a file that gets the line which takes the
# change back. Exit status 3: it refuses, with the reason on standard error.
function back(op, old) {
    if (BACK != "") printf "%s\t%s\t%s\n", op, AT, old > BACK
}
BEGIN {
    OP = ENVIRON["OP"]
    AT = ENVIRON["AT"]
    VALUE = ENVIRON["VALUE"]
    BACK = ENVIRON["BACK"]
}
NR == 1 && substr($0, 1, 3) == "\357\273\277" {
    print "a byte order mark at its beginning" > "/dev/stderr"
    refused = 1
    exit 3
}
{
    line[NR] = $0
    bare = $0
    if (sub(/\r$/, "", bare)) ending = "\r"
    sub(/^[ \t]*(export[ \t]+)?/, "", bare)
    if (substr(bare, 1, length(AT) + 1) == AT "=") {
        found[NR] = 1
        count++
        old = substr(bare, length(AT) + 2)
    }
}
END {
    if (refused) exit 3
    if (count > 1) {
        print "the variable " AT " twice" > "/dev/stderr"
        exit 3
    }
    if (!count && OP == "set") back("del", "")
    if (count && (OP == "del" || old != VALUE)) back("set", old)
    for (i = 1; i <= NR; i++) {
        if (!(i in found)) print line[i]
        else if (OP == "set") print (old == VALUE ? line[i] : AT "=" VALUE ending)
    }
    if (!count && OP == "set") print AT "=" VALUE ending
}
