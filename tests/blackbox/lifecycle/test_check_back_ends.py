"""`gatecast check` on back ends: each wrong or missing key is a fault with its line, and with what to write."""

import re

import pytest

from gatecast import ROOT, command

# What is wrong, and behind `##` a part of its fault, which has the number of that line.
BACK_ENDS = """
[targets.no-url]                                    ## targets.no-url.url: missing; for instance url = "http://127.0.0.1:9000/events"
[targets.ftp]
url = "ftp://127.0.0.1/"                            ## targets.ftp.url
[targets.no-host]
url = "http:///events"                              ## targets.no-host.url
[targets.number]
url = 9000                                          ## targets.number.url
[targets."a b"]                                     ## a back end's name has 1 to 64 letters, digits, - and _
url = "http://127.0.0.1"
[targets.many]
url = "http://127.0.0.1"
format = "soap"                                     ## lambda-proxy
timeout = "30s"                                     ## targets.many.timeout: 30s is not within 50ms to 29s
max_in_flight = 0                                   ## targets.many.max_in_flight: 0 is not within 1 to 65536
max_waiting = -1                                    ## targets.many.max_waiting
headers = { Host = "x" }                            ## "Host" is no header that can be set; remove it
retries = 3                                         ## targets.many.retries: unknown
[targets.types]
url = "http://127.0.0.1"
format = 1                                          ## targets.types.format
timeout = 29                                        ## targets.types.timeout
max_in_flight = "many"                              ## targets.types.max_in_flight
max_waiting = true                                  ## targets.types.max_waiting
headers = "X-Tag: a"                                ## targets.types.headers
parameters = [1]                                    ## targets.types.parameters
[targets.header]
url = "http://127.0.0.1"
headers = { "X Tag" = "a" }                         ## "X Tag" is no header that can be set; remove it

[lambdas.none]                                      ## lambdas.none.function: missing; set it to a function's name or ARN
endpoint = "http://127.0.0.1:3002"
[lambdas.arn]
function = "arn:aws:lambda:eu-west-1:function:chat" ## is not a function's name or ARN
[lambdas.twice]
function = "arn:aws:lambda:eu-west-1:123456789012:function:chat"
region = "eu-west-2"                                ## not the region of the function's ARN; remove it
[lambdas.nowhere]                                   ## lambdas.nowhere.region: missing; set it, or AWS_REGION
function = "chat"
[lambdas.plain]
function = "chat"
endpoint = "http://127.0.0.1:3002/?a=b"             ## an address without a query
profile = "me"                                      ## nothing is signed with it; write auth = "sigv4"
[lambdas.many]
function = "chat"
endpoint = "http://127.0.0.1:3002"
auth = "basic"                                      ## lambdas.many.auth
timeout = "30s"                                     ## lambdas.many.timeout: 30s is not within 50ms to 29s
max_in_flight = 0                                   ## lambdas.many.max_in_flight: 0 is not within 1 to 65536
max_waiting = -1                                    ## lambdas.many.max_waiting
qualifier = "prod"                                  ## lambdas.many.qualifier: unknown

[streams.none]                                      ## streams.none: a stream is kept in Redis, and redis.url is not set
max_entries = 0                                     ## streams.none.max_entries: 0 is not within 1 to 1000000000
[streams.unknown]
min_entries = 1                                     ## did you mean "max_entries"?
[streams.type]
max_entries = "all"                                 ## streams.type.max_entries

[functions.nothing]                                 ## functions.nothing.runtime: missing; set it to "node", "python" or "command"
[functions.no-code]                                 ## functions.no-code.code: missing; set it to the folder of the code
runtime = "command"
[functions.no-folder]
runtime = "command"
code = "nowhere"                                    ## nowhere is no folder; name the one that the code is in
[functions.no-handler]                              ## functions.no-handler.handler: missing; for instance handler = "index.handler"
runtime = "node"
code = "."
[functions.many]
runtime = "ruby"                                    ## functions.many.runtime
code = "."
command = "./bootstrap"                             ## functions.many.command
timeout = "16m"                                     ## functions.many.timeout: 960s is not within 50ms to 900s
min_processes = 2000                                ## functions.many.min_processes: 2000 is not within 0 to 1000
max_processes = 0                                   ## functions.many.max_processes: 0 is not within 1 to 1000
concurrency = 0                                     ## functions.many.concurrency: 0 is not within 1 to 1000
environment = { "1A" = "x" }                        ## "1A" is no name of a variable
hosts = { "db.example.com" = "db" }                 ## functions.many.hosts
callback_domain = "https://a/beta"                  ## functions.many.callback_domain
memory = 128                                        ## functions.many.memory: unknown
[functions.types]
runtime = 18                                        ## functions.types.runtime
code = ["."]                                        ## functions.types.code
handler = []                                        ## functions.types.handler
timeout = 3                                         ## functions.types.timeout
environment = ["A=b"]                               ## expected texts by name, such as { TABLE = "connections" }
hosts = "127.0.0.1:8000"                            ## expected addresses by name, such as { "db.example.com" = "127.0.0.1:8000" }
[functions.own]
runtime = "command"
code = "."
min_processes = 5
max_processes = 2                                   ## less than min_processes, 5; raise it, or lower that
environment = { AWS_LAMBDA_RUNTIME_API = "x" }      ## AWS_LAMBDA_RUNTIME_API is set by the node; choose another name

[callback]
listen = "8443"                                     ## callback.listen
domain_name = "https://a/beta"                      ## without a scheme
cert_file = "/nowhere"                              ## set both or none
region = "US East"                                  ## callback.region
port = 8443                                         ## callback.port: unknown
"""
ROUTES = """
[targets.app]
url = "http://127.0.0.1"
[streams.work]                                      ## streams.work: a stream is kept in Redis, and redis.url is not set
[functions.app]
runtime = "command"
code = "."

[routes.a]                                          ## routes.a.target: missing
integration = "http"
[routes.b]
integration = "http"
target = "ap"                                       ## did you mean "app"?
[routes.c]
integration = "http"
target = "app"
function = "app"                                    ## routes.c.function
[routes.d]                                          ## routes.d.function: missing
integration = "function"
[routes.e]
integration = "function"
function = "sendMessage"                            ## there is no [functions.sendMessage]
[routes.f]
integration = "function"
function = "app"
ordering = "connections"                            ## routes.f.ordering
two_way = "yes"                                     ## routes.f.two_way
[routes.g]                                          ## routes.g.stream: missing
integration = "stream"
[routes.h]
integration = "stream"
stream = "works"                                    ## did you mean "work"?
[routes.i]
integration = "stream"
stream = "work"
two_way = true                                      ## routes.i.two_way
[routes.j]
integration = "http"
target = "app"
reply = "x"                                         ## write two_way = true
[routes.k]
integration = "mock"
target = "app"                                      ## routes.k.target
[routes.l]                                          ## routes.l.lambda: missing
integration = "lambda"
[routes.m]
integration = "lambda"
lambda = "app"                                      ## there is no [lambdas.app]
[routes.n]
integration = "lambdas"                             ## it is one of mock
[routes."$connect"]
integration = "http"
target = "app"
two_way = true                                      ## nobody can be answered on $connect and $disconnect; remove it
[routes."$disconnect"]
integration = "function"
function = "app"
reply = "x"                                         ## nobody can be answered on $connect and $disconnect; remove it
"""
FILES = {"back ends": BACK_ENDS, "routes": ROUTES}


@pytest.mark.parametrize("name", FILES)
def test_each_fault_has_its_line_and_a_cure(tmp_path, name):
    path = tmp_path / "gatecast.toml"
    lines = FILES[name].splitlines()
    path.write_text("\n".join(line.split("##")[0] for line in lines))
    checked = command("check", "--config", path)
    assert checked.returncode == 64, checked.stderr
    first, *faults = checked.stderr.splitlines()
    found = {}
    for fault in faults:
        if number := re.match(rf"{re.escape(str(path))}:(\d+): ", fault):
            found.setdefault(int(number[1]), []).append(fault[number.end():])
    expected = {number: line.split("##")[1].strip() for number, line in enumerate(lines, 1) if "##" in line}
    wrong = {number: (part, found.get(number)) for number, part in expected.items() if part not in " ".join(found.get(number, []))}
    assert not wrong, checked.stderr
    assert found.keys() == expected.keys(), {number: found[number] for number in found.keys() - expected.keys()}


def test_every_key_is_wrong_once():
    """As the README lists them."""
    keys = re.findall(r"^\| `((?:targets|lambdas|streams|functions|callback)\.[a-z_.*]+)` \|", (ROOT / "README.md").read_text(), re.M)
    assert len(keys) > 20
    sections = {}
    for line in BACK_ENDS.splitlines():
        if table := re.match(r"\[(\w+)(?:\.(.+?))?\]", line):
            section = table[1]
        text, _, fault = line.partition("##")
        if fault:
            name = re.search(r"\.(\w+): missing", fault) or re.match(r"(\w+) =", text)
            sections.setdefault(section, set()).update([name[1]] if name else [])
    missing = [key for key in keys if key.split(".")[-1] not in sections[key.split(".")[0]]]
    assert missing in ([], ["callback.key_file"]), missing
