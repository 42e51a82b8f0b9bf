# Sets up clients of language models for the relay at @url@.
#
#   irm @url@/setup.ps1 | iex
#   & ([scriptblock]::Create((irm @url@/setup.ps1))) -Key KEY -Client codex -Yes
#
# It changes settings files only, keeps what they were, and gives it back with -Undo. It runs in
# Windows PowerShell 5.1 and PowerShell 7. Made from the settings of the relay; it holds no key.
#
#   -Client NAME    which client to set up; several with commas, or all
#                   @id_list@  [default: asks]
#   -Key KEY        the key of the relay  [default: $env:RELAY_KEY, else asks]
#   -Yes            ask nothing, and start nothing
#   -NoLaunch       do not offer to start the client
#   -Undo           give back what the files were before
param([string[]]$Client = @(), [string]$Key = '', [switch]$Yes, [switch]$NoLaunch, [switch]$Undo)

# Its own scope: nothing stays behind in the shell that runs it. Nothing in it says `exit`, which
# would close that shell.
& {
param([string[]]$Chosen, [string]$Key, [bool]$Yes, [bool]$NoLaunch, [bool]$Undo)

$ErrorActionPreference = 'Stop'
$Base = @base@
$Model = @small@
$Separator = [string][char]0x1e
$Utf8 = New-Object System.Text.UTF8Encoding($false, $true)
$Run = @{ Failed = $false; YamlStarted = @() }
# Windows PowerShell offers old versions of TLS only, unless it is asked.
[Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12
Add-Type -AssemblyName System.Net.Http

function Write-Good([string]$Text) { Write-Host "  ok   $Text" }
function Write-Bad([string]$Text) { Write-Host "  !    $Text" -ForegroundColor Yellow }
# Ends the script: caught below, and shown.
function Stop-SetUp([string]$Text) { throw (New-Object System.OperationCanceledException($Text)) }

function Test-Agreement([string]$Question) {
    return (Read-Host "$Question [Y/n]") -notmatch '^\s*[Nn]'
}

# The path of a folder from a variable, or from another one and a name.
function Get-Folder([string]$Variable, [string]$Otherwise) {
    $value = [Environment]::GetEnvironmentVariable($Variable)
    if ($value) { return $value }
    return $Otherwise
}

$UserHome = [Environment]::GetFolderPath('UserProfile')
$Roaming = [Environment]::GetFolderPath('ApplicationData')
$Local = [Environment]::GetFolderPath('LocalApplicationData')
$Folders = @{
    claude_folder = Get-Folder 'CLAUDE_CONFIG_DIR' (Join-Path $UserHome '.claude')
    claude_state_folder = Get-Folder 'CLAUDE_CONFIG_DIR' $UserHome
    codex_folder = Get-Folder 'CODEX_HOME' (Join-Path $UserHome '.codex')
    hermes_folder = Get-Folder 'HERMES_HOME' (Join-Path $Local 'hermes')
    opencode_folder = Join-Path (Get-Folder 'XDG_CONFIG_HOME' (Join-Path $UserHome '.config')) 'opencode'
    code_folder = Join-Path $Roaming 'Code\User'
    cursor_folder = Join-Path $Roaming 'Cursor\User'
    windsurf_folder = Join-Path $Roaming 'Windsurf\User'
}
$State = Join-Path $Local 'relay-setup'

# --- JSON ---
#
# An edit changes one place of a text, and nothing else of it. It gives the new text and the lines
# that take the change back: operation, place and value, with tabs between.

function New-Edited([string]$Text, [string[]]$Back = @()) {
    return @{ Text = $Text; Back = $Back }
}

function Split-Json([string]$Text) {
    $pattern = New-Object regex('\G[ \t\r\n]*(?:(?<s>"(?:[^"\\]|\\.)*")|(?<p>[{}\[\]:,])|(?<v>true|false|null|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?))')
    $tokens = New-Object System.Collections.ArrayList
    $at = 0
    while ($true) {
        $found = $pattern.Match($Text, $at)
        if (-not $found.Success) {
            $rest = $Text.Substring($at).Trim(" `t`r`n".ToCharArray())
            if (-not $rest) { break }
            if ($rest.StartsWith('/') -or $rest.StartsWith('#')) { throw 'it has a comment' }
            throw 'it has something that is not JSON'
        }
        foreach ($kind in 's', 'p', 'v') {
            $group = $found.Groups[$kind]
            if ($group.Success) {
                $name = $kind
                if ($kind -eq 'p') { $name = $group.Value }
                [void]$tokens.Add(@{ Kind = $name; Start = $group.Index; End = $group.Index + $group.Length; Text = $group.Value; Close = -1 })
            }
        }
        $at = $found.Index + $found.Length
    }
    return , $tokens
}

function Get-Kind($Tokens, [int]$At) {
    if ($At -lt $Tokens.Count) { return $Tokens[$At].Kind }
    return ''
}

# The token after the value that begins at $At. Checks the grammar.
function Test-Value($Tokens, [int]$At) {
    $kind = Get-Kind $Tokens $At
    if ($kind -eq 's' -or $kind -eq 'v') { return $At + 1 }
    if ($kind -ne '{' -and $kind -ne '[') { throw 'it lacks a value' }
    $end = '}'
    if ($kind -eq '[') { $end = ']' }
    $next = $At + 1
    while ((Get-Kind $Tokens $next) -ne $end -or $next -gt $At + 1) {
        if ((Get-Kind $Tokens $next) -eq $end) { throw 'it has a comma before a closing bracket' }
        if ($kind -eq '{') {
            if ((Get-Kind $Tokens $next) -ne 's' -or (Get-Kind $Tokens ($next + 1)) -ne ':') { throw 'it has a member without a name' }
            $next += 2
        }
        $next = Test-Value $Tokens $next
        if ((Get-Kind $Tokens $next) -eq $end) { break }
        if ((Get-Kind $Tokens $next) -ne ',') { throw 'it lacks a comma' }
        $next += 1
    }
    $Tokens[$At].Close = $next
    return $next + 1
}

function Get-After($Tokens, [int]$At) {
    if ($Tokens[$At].Close -ge 0) { return $Tokens[$At].Close + 1 }
    return $At + 1
}

# The token that names a member of the object at $Owner; -1: there is none.
function Find-Member($Tokens, [int]$Owner, [string]$Name) {
    $found = -1
    $at = $Owner + 1
    while ((Get-Kind $Tokens $at) -eq 's') {
        if ($Tokens[$at].Text.Contains('\u')) { throw 'it has a name with \u in it' }
        if ($Tokens[$at].Text -ceq ('"' + $Name + '"')) {
            if ($found -ge 0) { throw "it has the name $Name twice" }
            $found = $at
        }
        $at = Get-After $Tokens ($at + 2)
        if ((Get-Kind $Tokens $at) -ne ',') { break }
        $at += 1
    }
    return $found
}

# The space before a token, when a line begins there; else nothing.
function Get-Lead([string]$Text, $Tokens, [int]$At) {
    $from = 0
    if ($At -gt 0) { $from = $Tokens[$At - 1].End }
    $space = $Text.Substring($from, $Tokens[$At].Start - $from)
    if ($space.Contains("`n")) { return $space }
    return ''
}

# The lines of a value, below a name with this space before it.
function Join-Lines([string]$Value, [string]$Lead) {
    $lines = $Value.Split([char]0x1e)
    if (-not $Lead) { return ($lines | ForEach-Object { $_.Trim() }) -join ' ' }
    $start = $Lead.LastIndexOf("`n")
    if ($start -gt 0 -and $Lead[$start - 1] -eq "`r") { $start -= 1 }
    return $lines -join $Lead.Substring($start)
}

function Get-Flat([string]$Text) {
    return $Text.Replace("`n", $Separator)
}

function Edit-Json([string]$Text, [string]$Operation, [string]$Place, [string]$Value) {
    if (-not $Text.Trim()) { $Text = "{}`n" }
    $tokens = Split-Json $Text
    if ((Get-Kind $tokens 0) -ne '{') { throw 'it has no object at its top' }
    if ((Test-Value $tokens 0) -ne $tokens.Count) { throw 'it has something after its end' }
    $names = $Place.Split('/')
    $owner = 0
    $member = -1
    for ($depth = 0; $depth -lt $names.Count; $depth++) {
        if ((Get-Kind $tokens $owner) -ne '{') {
            if ($Operation -eq 'set' -or $Operation -eq 'add') { throw "it has a member $($names[$depth - 1]) that is no object" }
            return New-Edited $Text
        }
        $member = Find-Member $tokens $owner $names[$depth]
        if ($member -lt 0) { break }
        if ($depth -lt $names.Count - 1) { $owner = $member + 2 }
    }
    if ($Operation -eq 'add' -or $Operation -eq 'drop') {
        if ($member -lt 0) {
            if ($Operation -eq 'drop') { return New-Edited $Text }
            $Value = "[$Value]"
        } else {
            $list = $member + 2
            if ((Get-Kind $tokens $list) -ne '[') { throw "it has a member $Place that is no array" }
            $items = New-Object System.Collections.ArrayList
            $at = $list + 1
            while ((Get-Kind $tokens $at) -ne ']') {
                $next = Get-After $tokens $at
                [void]$items.Add($Text.Substring($tokens[$at].Start, $tokens[$next - 1].End - $tokens[$at].Start))
                if ((Get-Kind $tokens $next) -eq ',') { $next += 1 }
                $at = $next
            }
            $is_there = $items -ccontains $Value
            if ($is_there -eq ($Operation -eq 'add')) { return New-Edited $Text }
            if ($Operation -eq 'add') { [void]$items.Add($Value) }
            else { $items = @($items | Where-Object { $_ -cne $Value }) }
            $Value = '[' + ($items -join ', ') + ']'
        }
        $Operation = 'set'
    }
    if ($Operation -eq 'set') {
        if ($member -ge 0) { return Set-JsonMember $Text $tokens $member $Place $Value }
        return Add-JsonMember $Text $tokens $owner $names $depth $Value
    }
    if ($member -lt 0) { return New-Edited $Text }
    if ($Operation -eq 'prune' -and -not ((Get-Kind $tokens ($member + 2)) -eq '{' -and (Get-Kind $tokens ($member + 3)) -eq '}')) {
        return New-Edited $Text
    }
    return Remove-JsonMember $Text $tokens $member $Place
}

function Get-JsonValue([string]$Text, $Tokens, [int]$Member) {
    $start = $Tokens[$Member + 2].Start
    return $Text.Substring($start, $Tokens[(Get-After $Tokens ($Member + 2)) - 1].End - $start)
}

function Set-JsonMember([string]$Text, $Tokens, [int]$Member, [string]$Place, [string]$Value) {
    $old = Get-JsonValue $Text $Tokens $Member
    $new = Join-Lines $Value (Get-Lead $Text $Tokens $Member)
    if ($old -ceq $new) { return New-Edited $Text }
    $start = $Tokens[$Member + 2].Start
    $edited = $Text.Substring(0, $start) + $new + $Text.Substring($start + $old.Length)
    return New-Edited $edited @("set`t$Place`t$(Get-Flat $old)")
}

# Puts a member, and the objects around it that there are not, at the end of the object at $Owner.
function Add-JsonMember([string]$Text, $Tokens, [int]$Owner, [string[]]$Names, [int]$Depth, [string]$Value) {
    $back = @("del`t$($Names -join '/')`t")
    for ($count = $Names.Count - 1; $count -gt $Depth; $count--) {
        $back += "prune`t$($Names[0..($count - 1)] -join '/')`t"
        $Value = '{' + $Separator + '  "' + $Names[$count] + '": ' + $Value.Replace($Separator, "$Separator  ") + $Separator + '}'
    }
    $name = '"' + $Names[$Depth] + '": '
    $close = $Tokens[$Owner].Close
    if ($close -eq $Owner + 1) {
        $outer = "`n"
        if ($Owner -gt 0) { $outer = Get-Lead $Text $Tokens ($Owner - 2) }
        $inner = ''
        if ($outer) { $inner = "$outer  " }
        $new = '{' + $inner + $name + (Join-Lines $Value $inner) + $outer
        $edited = $Text.Substring(0, $Tokens[$Owner].Start) + $new + $Text.Substring($Tokens[$close].Start)
    } else {
        $lead = Get-Lead $Text $Tokens ($Owner + 1)
        $end = $Tokens[$close - 1].End
        $edited = $Text.Substring(0, $end) + ',' + $lead + $name + (Join-Lines $Value $lead) + $Text.Substring($end)
    }
    return New-Edited $edited $back
}

function Remove-JsonMember([string]$Text, $Tokens, [int]$Member, [string]$Place) {
    $old = Get-JsonValue $Text $Tokens $Member
    $last = (Get-After $Tokens ($Member + 2)) - 1
    $from = $Tokens[$Member].Start
    $to = $Tokens[$last].End
    if ((Get-Kind $Tokens ($Member - 1)) -eq ',') {
        $from = $Tokens[$Member - 1].Start
    } elseif ((Get-Kind $Tokens ($last + 1)) -eq ',') {
        $to = $Tokens[$last + 2].Start
    } else {
        $from = $Tokens[$Member - 1].End
        $to = $Tokens[$last + 1].Start
    }
    return New-Edited ($Text.Substring(0, $from) + $Text.Substring($to)) @("set`t$Place`t$(Get-Flat $old)")
}

# --- the other formats, by lines ---

# The lines of a text, and how they end. A last line without an end gets one.
function Split-Lines([string]$Text) {
    $ending = "`n"
    if ($Text.Contains("`r`n")) { $ending = "`r`n" }
    $lines = New-Object System.Collections.ArrayList
    if ($Text) {
        $plain = $Text.Replace("`r`n", "`n")
        if ($plain.EndsWith("`n")) { $plain = $plain.Substring(0, $plain.Length - 1) }
        foreach ($line in $plain.Split([char]10)) { [void]$lines.Add($line) }
    }
    return @{ Lines = $lines; Ending = $ending }
}

function Join-Text($Lines, [string]$Ending) {
    if (@($Lines).Count -eq 0) { return '' }
    return (@($Lines) -join $Ending) + $Ending
}

function Edit-Env([string]$Text, [string]$Operation, [string]$Place, [string]$Value) {
    $split = Split-Lines $Text
    $pattern = '^\s*(export\s+)?' + [regex]::Escape($Place) + '='
    $hits = @()
    for ($at = 0; $at -lt $split.Lines.Count; $at++) {
        if ($split.Lines[$at] -cmatch $pattern) { $hits += $at }
    }
    if ($hits.Count -gt 1) { throw "it has the variable $Place twice" }
    if ($hits.Count -eq 0) {
        if ($Operation -ne 'set') { return New-Edited $Text }
        [void]$split.Lines.Add("$Place=$Value")
        return New-Edited (Join-Text $split.Lines $split.Ending) @("del`t$Place`t")
    }
    $old = $split.Lines[$hits[0]] -creplace $pattern, ''
    if ($Operation -eq 'set') {
        if ($old -ceq $Value) { return New-Edited $Text }
        $split.Lines[$hits[0]] = "$Place=$Value"
    } else {
        $split.Lines.RemoveAt($hits[0])
    }
    return New-Edited (Join-Text $split.Lines $split.Ending) @("set`t$Place`t$old")
}

function Edit-Toml([string]$Text, [string]$Operation, [string]$Place, [string]$Value) {
    if ($Text.Contains('"""') -or $Text.Contains("'''")) { throw 'it has a text of several lines' }
    $split = Split-Lines $Text
    $lines = $split.Lines
    $open = 0
    $table = ''
    $first_table = -1
    $found = -1
    $last_key = -1
    $is_table = $Place.StartsWith('[')
    $wanted = $Place.TrimStart('[').TrimEnd(']')
    $cut = @{}
    for ($at = 0; $at -lt $lines.Count; $at++) {
        $bare = [regex]::Replace($lines[$at], '"(?:[^"\\]|\\.)*"|''[^'']*''|#.*$', 'q')
        if ($open -eq 0 -and $lines[$at] -match '^\s*\[') {
            $table = ($lines[$at] -replace '#.*$', '') -replace '["''\s\[\]]', ''
            if ($first_table -lt 0) { $first_table = $at }
            if ($is_table -and $lines[$at] -match '^\s*\[\[' -and "$table.".StartsWith("$wanted.")) { throw "it has [[$table]]" }
        } elseif ($open -eq 0 -and $lines[$at] -match '^\s*[^#\s]') {
            $name = ($lines[$at] -replace '=.*$', '') -replace '["''\s]', ''
            if ($is_table -and "$table.$name.".TrimStart('.').StartsWith('model_providers.relay.') -and -not "$table.".StartsWith("$wanted.")) { throw "it has the key $name" }
            if ($is_table -and $first_table -lt 0 -and $name -ceq 'model_providers') { throw "it has the key $name" }
            if ($first_table -lt 0) {
                $last_key = $at
                if ($name -ceq $Place) {
                    if ($found -ge 0) { throw "it has the key $Place twice" }
                    $found = $at
                }
            }
        }
        if ($is_table -and "$table.".StartsWith("$wanted.")) { $cut[$at] = $true }
        $open += ($bare -replace '[^\[{]', '').Length - ($bare -replace '[^\]}]', '').Length
        if ($first_table -lt 0 -and $open -gt 0) {
            if ($found -eq $at) { throw "it has the key $Place on several lines" }
            $last_key = $at + 1
        }
    }
    if ($open -ne 0) { throw 'it has something that does not end' }
    if ($is_table) { return Edit-Tables $Text $split $cut $Operation $Place $Value }
    if ($found -lt 0) {
        if ($Operation -ne 'set') { return New-Edited $Text }
        $lines.Insert($last_key + 1, "$Place = $Value")
        return New-Edited (Join-Text $lines $split.Ending) @("del`t$Place`t")
    }
    $old = $lines[$found] -creplace '^[^=]*=\s*', ''
    if ($Operation -eq 'set') {
        if ($old -ceq $Value) { return New-Edited $Text }
        $lines[$found] = "$Place = $Value"
    } else {
        $lines.RemoveAt($found)
    }
    return New-Edited (Join-Text $lines $split.Ending) @("set`t$Place`t$old")
}

# Replaces a table, and all below it, by other lines at the end.
function Edit-Tables([string]$Text, $Split, $Cut, [string]$Operation, [string]$Place, [string]$Value) {
    $lines = $Split.Lines
    # Blank lines and comments before the next table are of that table.
    $is_outside = $false
    for ($at = $lines.Count - 1; $at -ge 0; $at--) {
        if (-not $Cut[$at]) { $is_outside = $true }
        elseif ($is_outside -and $lines[$at] -match '^\s*(#.*)?$') { $Cut[$at] = $false }
        else { $is_outside = $false }
    }
    $gone = @()
    for ($at = 0; $at -lt $lines.Count; $at++) {
        if ($Cut[$at]) { $gone += $lines[$at] }
    }
    $old = ($gone -join $Separator) -replace '[\x1e\s]+$', ''
    $is_done = $Operation -ne 'set'
    if ($is_done) { $is_done = $old -eq '' } else { $is_done = $old -ceq $Value }
    if ($is_done) { return New-Edited $Text }
    $back = "del`t$Place`t"
    if ($old) { $back = "set`t$Place`t$old" }
    $kept = New-Object System.Collections.ArrayList
    for ($at = 0; $at -lt $lines.Count; $at++) {
        if (-not $Cut[$at]) { [void]$kept.Add($lines[$at]) }
    }
    while ($kept.Count -gt 0 -and -not $kept[$kept.Count - 1].Trim()) { $kept.RemoveAt($kept.Count - 1) }
    if ($Operation -eq 'set') {
        if ($kept.Count -gt 0) { [void]$kept.Add('') }
        foreach ($line in $Value.Split([char]0x1e)) { [void]$kept.Add($line) }
    }
    return New-Edited (Join-Text $kept $Split.Ending) @($back)
}

# A YAML document is written while it has neither mapping, and else left alone: it takes more than
# lines to change one.
function Edit-Yaml([string]$Text, [string]$Operation, [string]$Place, [string]$Value) {
    if ($Operation -ne 'set') { return New-Edited $Text }
    $split = Split-Lines $Text
    $names = $Place.Split('/')
    $new = @($Value.Split([char]0x1e))
    $new[0] = ("$($names[1]): " + $new[0]).TrimEnd()
    $new = @($new | ForEach-Object { "  $_" })
    if (("`n" + (Join-Text $split.Lines "`n")).Contains("`n" + (Join-Text $new "`n"))) { return New-Edited $Text }
    $top = $split.Lines.IndexOf("$($names[0]):")
    $is_ours = $Run.YamlStarted -ccontains $names[0]
    if (-not $is_ours) {
        if (@($split.Lines | Where-Object { $_ -match ('^["'']?' + $names[0] + '["'']?\s*:') }).Count -gt 0) { throw "it has $($names[0]) already" }
        $Run.YamlStarted += $names[0]
        [void]$split.Lines.Add("$($names[0]):")
        $top = $split.Lines.Count - 1
    }
    $at = $top + 1
    while ($at -lt $split.Lines.Count -and $split.Lines[$at].StartsWith(' ')) { $at++ }
    $split.Lines.InsertRange($at, $new)
    return New-Edited (Join-Text $split.Lines $split.Ending)
}

function Edit-Text([string]$Format, [string]$Text, [string]$Operation, [string]$Place, [string]$Value) {
    switch ($Format) {
        'json' { return Edit-Json $Text $Operation $Place $Value }
        'toml' { return Edit-Toml $Text $Operation $Place $Value }
        'yaml' { return Edit-Yaml $Text $Operation $Place $Value }
        'env' { return Edit-Env $Text $Operation $Place $Value }
    }
    return New-Edited "$Value`n"
}

# --- files ---
#
# Each change of a file is a folder in $State: `path`, `old` (what it was; none: it was not there),
# `now` (what it became), `back` (the edits that take the change back) and `format`.

# The file behind a symbolic link.
function Resolve-Link([string]$Path) {
    for ($hops = 0; $hops -lt 40; $hops++) {
        $item = Get-Item -LiteralPath $Path -Force -ErrorAction SilentlyContinue
        if (-not $item -or $item.LinkType -ne 'SymbolicLink') { break }
        $link = @($item.Target)[0]
        if (-not [IO.Path]::IsPathRooted($link)) { $link = Join-Path (Split-Path -Parent $Path) $link }
        $Path = $link
    }
    return $Path
}

function Read-Text([string]$Path) {
    $octets = [IO.File]::ReadAllBytes($Path)
    if ($octets.Length -ge 3 -and $octets[0] -eq 0xef -and $octets[1] -eq 0xbb -and $octets[2] -eq 0xbf) { throw 'it has a byte order mark at its beginning' }
    try { $text = $Utf8.GetString($octets) } catch { throw 'it is not UTF-8' }
    if ($text.Contains([string][char]0)) { throw 'it has octets that are no text' }
    return $text
}

# Puts a file in another's place, in one step.
function Copy-InPlace([string]$From, [string]$To) {
    $new = Join-Path (Split-Path -Parent $To) ('.relay-setup.' + [Guid]::NewGuid().ToString('N'))
    [IO.File]::Copy($From, $new)
    if (Test-Path -LiteralPath $To) { [IO.File]::Replace($new, $To, [NullString]::Value) }
    else { [IO.File]::Move($new, $To) }
}

function New-Folder([string]$Path) {
    $made = @()
    while ($Path -and -not (Test-Path -LiteralPath $Path)) {
        $made += $Path
        $Path = Split-Path -Parent $Path
    }
    if ($made.Count -gt 0) { [void][IO.Directory]::CreateDirectory($made[0]) }
    return $made
}

function Get-Changes {
    if (-not (Test-Path -LiteralPath $State)) { return @() }
    return @(Get-ChildItem -LiteralPath $State -Directory | Where-Object { $_.Name -match '^[0-9]{4}$' } | Sort-Object -Property Name)
}

function Save-Change([string]$Target, [string]$Format, [string]$Now, [string[]]$Back) {
    $made = @(New-Folder (Split-Path -Parent $Target))
    [void](New-Folder $State)
    $entry = Join-Path $State ('{0:d4}' -f (@(Get-Changes).Count + 1))
    $part = "$entry.part"
    if (Test-Path -LiteralPath $part) { Remove-Item -LiteralPath $part -Recurse -Force }
    [void][IO.Directory]::CreateDirectory($part)
    if (Test-Path -LiteralPath $Target) { Copy-Item -LiteralPath $Target -Destination (Join-Path $part 'old') }
    [IO.File]::WriteAllText((Join-Path $part 'path'), $Target, $Utf8)
    [IO.File]::WriteAllText((Join-Path $part 'format'), $Format, $Utf8)
    [IO.File]::WriteAllText((Join-Path $part 'now'), $Now, $Utf8)
    [IO.File]::WriteAllText((Join-Path $part 'back'), ($Back -join "`n"), $Utf8)
    [IO.File]::WriteAllText((Join-Path $part 'made'), ($made -join "`n"), $Utf8)
    Move-Item -LiteralPath $part -Destination $entry
    Copy-InPlace (Join-Path $entry 'now') $Target
}

function Write-Settings($File) {
    $path = Join-Path $Folders[$File.Folder] $File.Name
    if ($File.OnlyThere -and -not (Test-Path -LiteralPath $Folders[$File.Folder])) { return }
    $target = Resolve-Link $path
    $notes = @()
    $back = @()
    $Run.YamlStarted = @()
    try {
        $before = ''
        $is_there = Test-Path -LiteralPath $target
        if ($is_there) { $before = Read-Text $target }
        $text = $before
        foreach ($edit in $File.Edits) {
            $edited = Edit-Text $File.Format $text $edit.Operation $edit.Place $edit.Value
            if ($edited.Text -cne $text -and $edit.Says) { $notes += $edit.Says }
            $text = $edited.Text
            $back = @($edited.Back) + $back
        }
        if ($is_there -and $text -ceq $before) {
            Write-Good "$path is as it should be."
        } else {
            Save-Change $target $File.Format $text $back
            Write-Good "$path is written."
            foreach ($note in $notes) { Write-Bad "${path}: $note" }
        }
    } catch {
        $Run.Failed = $true
        Write-Host "  no   $path is left as it is: $($_.Exception.Message). Put this into it by hand, with your key:" -ForegroundColor Red
        $Run.YamlStarted = @()
        $paste = ''
        foreach ($edit in @($File.Edits | Where-Object { $_.Operation -eq 'set' })) {
            $paste = (Edit-Text $File.Format $paste 'set' $edit.Place $edit.Value.Replace($Key, 'YOUR_KEY')).Text
        }
        Write-Host $paste
    }
    if ($File.Rival) {
        $rival = Join-Path $Folders[$File.Folder] $File.Rival
        if (Test-Path -LiteralPath $rival) { Write-Bad "$rival is read too, and what it says wins. Check its model and provider." }
    }
}

# --- undo ---

function Test-Same([string]$One, [string]$Other) {
    if (-not (Test-Path -LiteralPath $One) -or -not (Test-Path -LiteralPath $Other)) { return $false }
    return [Convert]::ToBase64String([IO.File]::ReadAllBytes($One)) -ceq [Convert]::ToBase64String([IO.File]::ReadAllBytes($Other))
}

function Restore-Old([string]$Target, [string]$Old) {
    if (Test-Path -LiteralPath $Old) {
        Copy-InPlace $Old $Target
        Write-Good "$Target is as it was."
    } elseif (Test-Path -LiteralPath $Target) {
        Remove-Item -LiteralPath $Target -Force
        Write-Good "$Target is gone again."
    }
}

function Undo-Change([string]$Entry) {
    $target = Read-Text (Join-Path $Entry 'path')
    $format = Read-Text (Join-Path $Entry 'format')
    $old = Join-Path $Entry 'old'
    $now = Join-Path $Entry 'now'
    if (-not (Test-Path -LiteralPath $target) -or (Test-Same $target $now)) {
        Restore-Old $target $old
    } elseif (-not (Test-Same $target $old)) {
        $back = @((Read-Text (Join-Path $Entry 'back')).Split([char]10) | Where-Object { $_ })
        try {
            if ($back.Count -eq 0) { throw 'nothing to take out' }
            $text = Read-Text $target
            foreach ($step in $back) {
                $part = $step.Split([char[]]@([char]9), 3)
                $text = (Edit-Text $format $text $part[0] $part[1] $part[2]).Text
            }
            if (-not (Test-Path -LiteralPath $old) -and -not $text.Trim(" {}`t`r`n".ToCharArray())) {
                Restore-Old $target $old
            } else {
                [IO.File]::WriteAllText($now, $text, $Utf8)
                Copy-InPlace $now $target
                Write-Good "$target was changed since; the settings of the relay are taken out of it."
            }
        } catch {
            Copy-Item -LiteralPath $target -Destination "$target.before-undo" -Force
            Write-Bad "$target was changed since. That version is kept as $target.before-undo"
            Restore-Old $target $old
        }
    }
    foreach ($folder in @((Read-Text (Join-Path $Entry 'made')).Split([char]10) | Where-Object { $_ })) {
        if ((Test-Path -LiteralPath $folder) -and @(Get-ChildItem -LiteralPath $folder -Force).Count -eq 0) { Remove-Item -LiteralPath $folder }
    }
    Remove-Item -LiteralPath $Entry -Recurse -Force
}

function Undo-All {
    $changes = @(Get-Changes)
    if ($changes.Count -eq 0) { Stop-SetUp "There is nothing to undo: no change of this script is noted in $State" }
    [array]::Reverse($changes)
    foreach ($change in $changes) { Undo-Change $change.FullName }
    Remove-Item -LiteralPath $State -Recurse -Force
    Write-Good 'All settings are as they were.'
}

# --- requests ---

function New-Request([string]$Method, [string]$Path) {
    $verb = New-Object System.Net.Http.HttpMethod($Method)
    return New-Object System.Net.Http.HttpRequestMessage($verb, "$Base$Path")
}

# Sends a request: its status (0: there is no answer), text, the error, and the server's clock.
function Send-Request($Request) {
    $http = New-Object System.Net.Http.HttpClient
    $http.Timeout = [TimeSpan]::FromSeconds(90)
    try {
        $answer = $http.SendAsync($Request).GetAwaiter().GetResult()
        $text = $answer.Content.ReadAsStringAsync().GetAwaiter().GetResult()
        return @{ Status = [int]$answer.StatusCode; Text = $text; Error = ''; Date = $answer.Headers.Date }
    } catch {
        $cause = $_.Exception
        while ($cause.InnerException) { $cause = $cause.InnerException }
        return @{ Status = 0; Text = ''; Error = $cause.Message; Date = $null }
    } finally {
        $http.Dispose()
    }
}

function Send-Message([bool]$Streamed) {
    $body = '{"model": ' + $Model + ', "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello"}]'
    if ($Streamed) { $body += ', "stream": true' }
    $request = New-Request 'POST' '/v1/messages'
    $request.Headers.Add('x-api-key', $Key)
    $request.Headers.Add('anthropic-version', '2023-06-01')
    $request.Content = New-Object System.Net.Http.StringContent("$body}", $Utf8, 'application/json')
    return Send-Request $request
}

# What the relay says of an error.
function Get-Message([string]$Text) {
    try { return [string](ConvertFrom-Json -InputObject $Text).error.message } catch { return $Text.Substring(0, [Math]::Min(300, $Text.Length)) }
}

function Test-Relay {
    foreach ($name in 'HTTPS_PROXY', 'HTTP_PROXY', 'ALL_PROXY') {
        $value = [Environment]::GetEnvironmentVariable($name)
        if ($value) { Write-Bad ("A proxy is set, which clients use: $name=" + ($value -replace '//[^/@]*@', '//***@')) }
    }
    $answer = Send-Request (New-Request 'GET' '/healthz')
    if ($answer.Status -eq 0) {
        Stop-SetUp "Nothing answers at $Base. The relay is down, a firewall blocks its port, a proxy is in between, or your clock is wrong: it says $(Get-Date). ($($answer.Error))"
    }
    if ($answer.Status -ne 200) {
        Stop-SetUp "Something else answers at $Base, with status $($answer.Status). Is a log-in page of the network or a proxy in between?"
    }
    Write-Good "$Base answers."
    if ($answer.Date) {
        $minutes = [int][DateTimeOffset]::UtcNow.Subtract($answer.Date).TotalMinutes
        if ([Math]::Abs($minutes) -gt 5) { Write-Bad "Your clock is $minutes minutes off. Set it right: certificates and log-ins depend on it." }
    }
}

function Test-Key {
    $answer = Send-Message $false
    $status = $answer.Status
    $says = Get-Message $answer.Text
    if ($status -eq 0) { Stop-SetUp "The connection broke: $($answer.Error)" }
    if ($status -eq 401 -or $status -eq 403) { Stop-SetUp "The relay refuses the key: $says Make another one at $Base/dashboard/keys" }
    if ($status -eq 402 -or $status -eq 429) {
        Write-Bad "The key is right, but it has nothing left: $says"
        return
    }
    if ($status -ge 500) {
        Write-Bad "The relay cannot answer now: $says The settings are written all the same."
        return
    }
    if ($status -ne 200) { Stop-SetUp "The relay answers with status ${status}: $says" }
    Write-Good 'The key is right, and the model answers.'
    $answer = Send-Message $true
    if ($answer.Status -eq 200 -and $answer.Text.Contains('event: message_stop')) { Write-Good 'Streams come through.' }
    else { Write-Bad "A stream does not come through. Does a proxy or a virus scanner in between hold it back? $($answer.Error)" }
}

function Get-Key([string]$Given) {
    if (-not $Given) { $Given = [string]$env:RELAY_KEY }
    if (-not $Given) {
        if ($Yes) { Stop-SetUp "There is no key. Give one with -Key or in RELAY_KEY; make it at $Base/dashboard/keys" }
        Write-Host "The key of the relay; make one at $Base/dashboard/keys. It is not shown."
        $secret = Read-Host 'Key' -AsSecureString
        $Given = (New-Object System.Net.NetworkCredential('', $secret)).Password
    }
    if ($Given -notmatch '^[A-Za-z0-9._-]+$') { Stop-SetUp 'That is no key: it has other characters than letters, digits, . _ and -' }
    return $Given
}

# --- clients ---

function Test-Client($Client) {
    if ($Client.Command) { return [bool](Get-Command -Name $Client.Command -CommandType @('Application', 'ExternalScript') -ErrorAction SilentlyContinue) }
    foreach ($editor in '.vscode', '.cursor', '.windsurf') {
        $extensions = Join-Path $UserHome "$editor\extensions"
        if (Test-Path -Path (Join-Path $extensions 'anthropic.claude-code-*')) { return $true }
    }
    return $false
}

function Select-Clients($Clients) {
    $found = @($Clients | Where-Object { Test-Client $_ } | ForEach-Object { $_.Id })
    foreach ($one in $Clients) {
        if ($found -contains $one.Id) { Write-Good "$($one.Title) is installed." }
    }
    $wanted = @($Chosen | ForEach-Object { $_.Split(',') } | Where-Object { $_ })
    if ($wanted -contains 'all') { $wanted = $found }
    if ($wanted.Count -eq 0) {
        $wanted = $found
        if ($found.Count -gt 0 -and -not $Yes) {
            $answer = Read-Host "Which to set up? [$($found -join ' ')]"
            if ($answer) { $wanted = @($answer.Split(',', ' ') | Where-Object { $_ }) }
        }
    }
    if ($wanted.Count -eq 0) {
        $ways = @($Clients | ForEach-Object { "         $($_.Title): $($_.Install)" }) -join "`n"
        Stop-SetUp "There is no client on this machine that this script knows. Install one, for example:`n$ways`n       and run this script again. Or name one with -Client, to set it up beforehand."
    }
    foreach ($id in $wanted) {
        $one = @($Clients | Where-Object { $_.Id -eq $id })
        if ($one.Count -eq 0) { Stop-SetUp "Unknown client $id; there are: $(@($Clients | ForEach-Object { $_.Id }) -join ' ')" }
        if ($found -notcontains $id) { Write-Bad "$($one[0].Title) is not installed. It is set up all the same. To install it: $($one[0].Install)" }
    }
    return @($Clients | Where-Object { $wanted -contains $_.Id })
}

function Test-Variables($Clients) {
    $seen = @()
    foreach ($one in $Clients) {
        foreach ($variable in $one.Variables) {
            if ($seen -contains $variable.Name) { continue }
            $seen += $variable.Name
            foreach ($place in 'User', 'Machine') {
                if ([Environment]::GetEnvironmentVariable($variable.Name, $place)) {
                    Write-Bad "$($variable.Name) is set for the $($place.ToLower()): $($variable.Says). Take it out: [Environment]::SetEnvironmentVariable('$($variable.Name)', `$null, '$place')"
                }
            }
            if ([Environment]::GetEnvironmentVariable($variable.Name)) {
                Write-Bad "$($variable.Name) is set in this shell: $($variable.Says). Before you start the client: Remove-Item Env:$($variable.Name)"
            }
        }
    }
}

function Get-Clients([string]$Key) {
    $KeyEnd = $Key
    if ($Key.Length -gt 20) { $KeyEnd = $Key.Substring($Key.Length - 20) }
    $KeyFile = (Join-Path $Folders.codex_folder 'relay-key').Replace('\', '\\').Replace('"', '\"')
    $ReadFile = 'command = "cmd.exe"' + $Separator + 'args = ["/d", "/c", "type", "' + $KeyFile + '"]'
    return @(
@clients@
    )
}

function Start-Client($Clients) {
    foreach ($one in $Clients) {
        if (-not $one.Command -or -not (Test-Client $one)) { continue }
        if (Test-Agreement "Start $($one.Title) now?") { & $one.Command }
        return
    }
}

function Invoke-SetUp {
    if ($env:OS -ne 'Windows_NT') { Stop-SetUp "This script is for Windows. Here: curl -fsSL $Base/setup.sh | bash" }
    if ($Undo) {
        Undo-All
        return
    }
    if ($Model -eq '""') { Stop-SetUp 'This relay serves no model yet. Ask its operator.' }
    Write-Host "Clients for $Base"
    $picked = @(Select-Clients (Get-Clients 'x'))
    Test-Variables $picked
    Test-Relay
    $Key = Get-Key $Key
    Test-Key
    $ids = @($picked | ForEach-Object { $_.Id })
    if (-not $Yes -and -not (Test-Agreement "Write the settings of: $($ids -join ' ')?")) { Stop-SetUp 'Nothing was changed.' }
    $picked = @(Get-Clients $Key | Where-Object { $ids -contains $_.Id })
    foreach ($one in $picked) {
        foreach ($file in $one.Files) { Write-Settings $file }
        if ($one.Note) { Write-Bad "$($one.Title): $($one.Note)" }
    }
    if ($Run.Failed) { return }
    Write-Host "Done. To take it back: & ([scriptblock]::Create((irm $Base/setup.ps1))) -Undo"
    if (-not $Yes -and -not $NoLaunch) { Start-Client $picked }
}

try { Invoke-SetUp }
catch [System.OperationCanceledException] { Write-Host "  no   $($_.Exception.Message)" -ForegroundColor Red }
} $Client $Key ([bool]$Yes) ([bool]$NoLaunch) ([bool]$Undo)
