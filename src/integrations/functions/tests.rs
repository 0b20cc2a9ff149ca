//! Functions with real processes: Node.js, shells, and what misbehaves.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::config::Runtime;
use crate::integrations::invoke::{Invocation, InvokeError};
use crate::model::id::RequestId;
use crate::model::trail::Trail;
use crate::ops::metrics::Metrics;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of code, and the functions that are in it.
struct Bed {
    folder: PathBuf,
    settings: Vec<FunctionSettings>,
    metrics: Metrics,
    lifecycle: Lifecycle,
    timings: Timings,
    watches: bool,
}

impl Drop for Bed {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder);
    }
}

impl Bed {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder =
            PathBuf::from(format!("/tmp/gatecast-functions-{}", uuid::Uuid::new_v4().simple()));
        let bed = Self {
            folder,
            settings: Vec::new(),
            metrics: Metrics::new().expect("metrics"),
            lifecycle: Lifecycle::new(),
            timings: Timings { init: PATIENCE, ..Timings::default() },
            watches: false,
        };
        files.iter().for_each(|(name, text)| bed.write(name, text));
        bed
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    fn add(&mut self, name: &str, runtime: Runtime, handler: &str) -> &mut FunctionSettings {
        self.settings.push(FunctionSettings {
            name: name.to_owned(),
            runtime,
            handler: Some(handler.to_owned()).filter(|handler| !handler.is_empty()),
            code: self.folder.clone(),
            command: Vec::new(),
            timeout: PATIENCE,
            min_processes: 0,
            max_processes: 1,
            concurrency: 1,
            environment: BTreeMap::new(),
            hosts: BTreeMap::new(),
            callback_domain: None,
        });
        self.settings.last_mut().expect("it")
    }

    fn start(&self) -> Functions {
        let common = Common {
            region: "eu-north-1".to_owned(),
            path: None,
            watches: self.watches,
            environment_of: BTreeMap::new(),
        };
        let (settings, metrics) = (self.settings.clone(), &self.metrics.functions);
        Functions::start_with(settings, common, &self.lifecycle, metrics, self.timings)
            .expect("started")
    }

    fn page(&self) -> String {
        String::from_utf8(self.metrics.render().expect("a page")).expect("UTF-8")
    }

    /// A counter or a gauge of a function, with what comes behind its name.
    fn count(&self, metric: &str, function: &str, label: &str) -> u64 {
        let label = if label.is_empty() { String::new() } else { format!(",{label}") };
        let start = format!("function_{metric}{{function=\"{function}\"{label}}} ");
        let page = self.page();
        let value = page.lines().find_map(|line| line.split_once('_')?.1.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("{start} in {page}")).parse().expect("a number")
    }
}

fn invocation(event: &Value, time: Duration) -> Invocation {
    Invocation {
        request: RequestId::mint(),
        event: Bytes::from(event.to_string()),
        deadline: Instant::now() + time,
        trail: Trail::begin(Timestamp::now()),
    }
}

async fn invoke_within(
    functions: &Functions,
    name: &str,
    event: Value,
    time: Duration,
) -> Result<Value, InvokeError> {
    let result = functions.get(name).expect(name).invoke(invocation(&event, time)).await;
    result.map(|result| serde_json::from_slice(&result).expect("JSON"))
}

async fn invoke(functions: &Functions, name: &str, event: Value) -> Result<Value, InvokeError> {
    invoke_within(functions, name, event, PATIENCE).await
}

fn failure(result: Result<Value, InvokeError>) -> (String, String) {
    match result {
        Err(InvokeError::Function { kind, message }) => (kind, message),
        other => panic!("{other:?}"),
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process is there, and is more than a name that nobody has taken note of.
fn is_alive(pid: i64) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let status =
        fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !status.contains(") Z ")
}

async fn finish(bed: &Bed, functions: &Functions) {
    within(functions.shut_down(PATIENCE)).await;
    for settings in &bed.settings {
        assert_eq!(bed.count("processes", &settings.name, ""), 0, "{}", settings.name);
    }
    assert!(!bed.lifecycle.has_failed());
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(2 * PATIENCE, work).await.expect("in time")
}

const HANDLERS: &str = r#"
exports.promise = async (event, context) => ({ event, left: context.getRemainingTimeInMillis() });
exports.callback = (event, context, callback) => { setTimeout(() => callback(null, { style: 'callback' }), 1); };
exports.refused = (event, context, callback) => callback(new TypeError('no ' + event.what));
exports.text = (event, context, callback) => callback('a text');
exports.sync = (event) => ({ style: 'sync', event });
exports.nothing = async () => {};
exports.succeed = (event, context) => { setTimeout(() => context.succeed('later'), 1); };
exports.fail = (event, context) => context.fail(new Error('failed'));
exports.done = (event, context) => context.done(null, 'done');
exports.silent = (event, context, callback) => {};
exports.hung = () => new Promise(() => {});
exports.deep = { inner: { handler: async (event, context) => [context.functionName, context.invokedFunctionArn, context.awsRequestId] } };
exports.throws = () => { throw new RangeError('too far'); };
exports.cyclic = async () => { const a = {}; a.a = a; return a; };
exports.number = 7;
exports.rejected = () => { Promise.reject(new Error('nobody cared')); return new Promise((r) => setTimeout(r, 60000)); };
exports.uncaught = () => { setTimeout(() => { throw new Error('out of nowhere'); }, 1); return new Promise((r) => setTimeout(r, 60000)); };
exports.exits = () => process.exit(3);
exports.environment = async () => ({ ...process.env, cwd: process.cwd() });
"#;

fn handlers() -> Bed {
    Bed::new(&[
        ("index.js", HANDLERS),
        ("es.mjs", "export const handler = async (event) => ({ style: 'esm', event });"),
        ("es-default.mjs", "export default { handler: () => 'default' };"),
        ("module/package.json", "{\"type\":\"module\"}"),
        (
            "module/app.js",
            "import path from 'node:path'; export const handler = () => path.basename('/a/module');",
        ),
        ("common/app.cjs", "exports.handler = async () => require('./part');"),
        ("common/part.js", "module.exports = 'part';"),
        ("broken.js", "exports.handler = async () => { return ; "),
        ("broken-es.mjs", "export const handler = async () => { return ; "),
        ("lacking.js", "require('not-there'); exports.handler = () => 1;"),
        ("throwing.js", "throw new Error('at the top');"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_of_node_give_results_in_every_style() {
    let mut bed = handlers();
    for (name, handler) in [
        ("promise", "index.promise"),
        ("callback", "index.callback"),
        ("sync", "index.sync"),
        ("nothing", "index.nothing"),
        ("succeed", "index.succeed"),
        ("done", "index.done"),
        ("silent", "index.silent"),
        ("hung", "index.hung"),
        ("deep", "index.deep.inner.handler"),
        ("esm", "es.handler"),
        ("default", "es-default.handler"),
        ("type", "module/app.handler"),
        ("cjs", "common/app.handler"),
    ] {
        bed.add(name, Runtime::Node, handler);
    }
    let functions = bed.start();
    let event = json!({ "body": "ä\u{2028}", "n": [1, null] });
    let promise = invoke(&functions, "promise", event.clone()).await.expect("a result");
    assert_eq!(promise["event"], event);
    let left = promise["left"].as_u64().expect("a number");
    assert!((1..=60_000).contains(&left), "{left}");
    let deep = invoke(&functions, "deep", event.clone()).await.expect("a result");
    assert_eq!(
        (&deep[0], &deep[1]),
        (&json!("deep"), &json!("arn:aws:lambda:eu-north-1:000000000000:function:deep"))
    );
    for (name, expected) in [
        ("callback", json!({ "style": "callback" })),
        ("sync", json!({ "style": "sync", "event": event })),
        ("nothing", Value::Null),
        ("succeed", json!("later")),
        ("done", json!("done")),
        ("silent", Value::Null),
        ("hung", Value::Null),
        ("esm", json!({ "style": "esm", "event": event })),
        ("default", json!("default")),
        ("type", json!("module")),
        ("cjs", json!("part")),
    ] {
        for _ in 0..2 {
            assert_eq!(
                invoke(&functions, name, event.clone()).await,
                Ok(expected.clone()),
                "{name}"
            );
        }
        assert_eq!(bed.count("processes", name, ""), 1, "{name}");
        assert_eq!(bed.count("invocations_total", name, "outcome=\"ok\""), 2, "{name}");
    }
    finish(&bed, &functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_handlers_of_node_do_wrong_is_told() {
    let mut bed = handlers();
    for name in [
        "refused", "text", "fail", "throws", "cyclic", "rejected", "uncaught", "exits", "number",
        "absent",
    ] {
        bed.add(name, Runtime::Node, &format!("index.{name}"));
    }
    for (name, handler) in [
        ("syntax", "broken.handler"),
        ("syntax-es", "broken-es.handler"),
        ("lacking", "lacking.handler"),
        ("no-file", "nowhere.handler"),
        ("throwing", "throwing.handler"),
        ("malformed", "index"),
        ("outside", "../index.handler"),
    ] {
        bed.add(name, Runtime::Node, handler);
    }
    let functions = bed.start();
    for (name, kind, part, outcome, restart) in [
        ("refused", "TypeError", "no luck", "error", ""),
        ("text", "string", "a text", "error", ""),
        ("fail", "Error", "failed", "error", ""),
        ("throws", "RangeError", "too far", "error", ""),
        ("cyclic", "Runtime.MarshalError", "not JSON", "error", ""),
        ("rejected", "Runtime.UnhandledPromiseRejection", "nobody cared", "error", "exit"),
        ("uncaught", "Error", "out of nowhere", "error", "exit"),
        ("exits", "Runtime.ExitError", "exit status 3", "exit", "exit"),
        ("number", "Runtime.HandlerNotFound", "index.number", "init", "init"),
        ("absent", "Runtime.HandlerNotFound", "absent", "init", "init"),
        ("syntax", "Runtime.UserCodeSyntaxError", "SyntaxError", "init", "init"),
        ("syntax-es", "Runtime.UserCodeSyntaxError", "SyntaxError", "init", "init"),
        ("lacking", "Runtime.ImportModuleError", "not-there", "init", "init"),
        ("no-file", "Runtime.ImportModuleError", "nowhere", "init", "init"),
        ("throwing", "Error", "at the top", "init", "init"),
        ("malformed", "Runtime.MalformedHandlerName", "FILE.EXPORT", "init", "init"),
        ("outside", "Runtime.MalformedHandlerName", "FILE.EXPORT", "init", "init"),
    ] {
        let (found, message) = failure(invoke(&functions, name, json!({ "what": "luck" })).await);
        assert!(found == kind && message.contains(part), "{name}: {found}: {message}");
        assert_eq!(
            bed.count("invocations_total", name, &format!("outcome=\"{outcome}\"")),
            1,
            "{name}"
        );
        if restart.is_empty() {
            assert_eq!(bed.count("processes", name, ""), 1, "{name} goes on");
        } else {
            let reason = format!("reason=\"{restart}\"");
            eventually(name, || bed.count("restarts_total", name, &reason) == 1).await;
        }
    }
    // One that exits in a run is there again for the next.
    assert_eq!(failure(invoke(&functions, "exits", json!({})).await).0, "Runtime.ExitError");
    finish(&bed, &functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_the_environment_of_lambda_and_nothing_of_ours() {
    let mut bed = handlers();
    let settings = bed.add("environment", Runtime::Node, "index.environment");
    settings.environment.insert("TABLE".to_owned(), crate::config::Secret::new("connections"));
    let functions = bed.start();
    let environment = invoke(&functions, "environment", json!({})).await.expect("a result");
    for (name, value) in [
        ("TABLE", "connections"),
        ("AWS_REGION", "eu-north-1"),
        ("AWS_LAMBDA_FUNCTION_NAME", "environment"),
        ("_HANDLER", "index.environment"),
        ("cwd", bed.folder.to_str().expect("UTF-8")),
    ] {
        assert_eq!(environment[name], value, "{name}");
    }
    let execution = environment["AWS_EXECUTION_ENV"].as_str().expect("a text");
    assert!(execution.starts_with("AWS_Lambda_nodejs") && execution.ends_with(".x"), "{execution}");
    for name in ["HOME", "USER", "CARGO_MANIFEST_DIR", "CARGO", "AWS_SECRET_ACCESS_KEY"] {
        assert_eq!(environment[name], Value::Null, "{name}");
    }
    finish(&bed, &functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_is_ended_with_its_process() {
    let mut bed = Bed::new(&[(
        "index.js",
        "exports.handler = async (event) => { if (event.ms === -1) for (;;); \
         await new Promise((r) => setTimeout(r, event.ms)); return process.pid; };",
    )]);
    bed.add("slow", Runtime::Node, "index.handler").timeout = Duration::from_secs(3);
    let functions = bed.start();
    let first = invoke(&functions, "slow", json!({ "ms": 0 })).await.expect("a result");
    // The caller waits less than the function may take: it goes on, and its answer is dropped.
    let late =
        invoke_within(&functions, "slow", json!({ "ms": 300 }), Duration::from_millis(100)).await;
    assert_eq!(late, Err(InvokeError::TimedOut));
    assert_eq!(invoke(&functions, "slow", json!({ "ms": 0 })).await, Ok(first.clone()));
    let (kind, message) = failure(invoke(&functions, "slow", json!({ "ms": -1 })).await);
    assert_eq!((&*kind, &*message), ("Sandbox.Timedout", "Task timed out after 3.00 seconds"));
    eventually("killed", || !is_alive(first.as_i64().expect("a pid"))).await;
    assert_ne!(invoke(&functions, "slow", json!({ "ms": 0 })).await, Ok(first));
    assert_eq!(bed.count("restarts_total", "slow", "reason=\"timeout\""), 1);
    assert_eq!(bed.count("invocations_total", "slow", "outcome=\"timeout\""), 2);
    finish(&bed, &functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_have_a_limit_and_errors_come_however_long_their_headers() {
    let raw = r#"
const http = require('node:http');
const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const call = (method, path, headers, body) => new Promise((resolve, reject) => {
  const request = http.request({ host, port, method, path: '/2018-06-01/runtime/' + path, headers }, (answer) => {
    let text = ''; answer.on('data', (part) => text += part); answer.on('end', () => resolve({ answer, text }));
  });
  request.on('error', reject); request.end(body);
});
(async () => {
  let before = null;
  for (;;) {
    const { answer, text } = await call('GET', 'invocation/next');
    const [id, event] = [answer.headers['lambda-runtime-aws-request-id'], JSON.parse(text)];
    const path = `invocation/${id}/`;
    let told;
    if (event.error) told = await call('POST', path + 'error', { 'Lambda-Runtime-Function-Error-Type': 'Big',
      'Lambda-Runtime-Function-XRay-Error-Cause': 'x'.repeat(event.error) }, JSON.stringify({ errorMessage: 'big' }));
    else if (event.chunks) told = await call('POST', path + 'response', { 'Transfer-Encoding': 'chunked', Trailer: 'X' }, '"' + 'x'.repeat(event.chunks) + '"');
    else if (event.length) told = await call('POST', path + 'response', {}, '"' + 'x'.repeat(event.length - 2) + '"');
    else told = await call('POST', path + 'response', {}, JSON.stringify(before));
    before = [told.answer.statusCode, told.text, answer.headers['content-type'], Object.keys(answer.headers).filter((name) => name.startsWith('lambda')).length];
  }
})();
"#;
    let mut bed = Bed::new(&[("raw.js", raw)]);
    bed.add("raw", Runtime::Command, "").command = vec!["node".to_owned(), "raw.js".to_owned()];
    let functions = bed.start();
    let most = body::BODY_MAX;
    let accepted = json!([202, "", "application/json", 4]);
    let whole = invoke(&functions, "raw", json!({ "length": most })).await.expect("a result");
    assert_eq!(whole.as_str().map(str::len), Some(most - 2));
    assert_eq!(invoke(&functions, "raw", json!({})).await, Ok(accepted.clone()));
    for event in
        [json!({ "length": most + 1 }), json!({ "length": 20 << 20 }), json!({ "chunks": most })]
    {
        let (kind, message) = failure(invoke(&functions, "raw", event).await);
        assert_eq!(kind, "Function.ResponseSizeTooLarge", "{message}");
        let refused = invoke(&functions, "raw", json!({})).await.expect("a result");
        assert_eq!(
            (&refused[0], refused[1].as_str().map(|text| text.contains("RequestEntityTooLarge"))),
            (&json!(413), Some(true))
        );
    }
    for length in [300_000, 1_200_000] {
        assert_eq!(
            failure(invoke(&functions, "raw", json!({ "error": length })).await),
            ("Big".to_owned(), "big".to_owned())
        );
        assert_eq!(invoke(&functions, "raw", json!({})).await, Ok(accepted.clone()));
    }
    assert_eq!(bed.count("restarts_total", "raw", "reason=\"exit\""), 0);
    assert_eq!(bed.count("invocations_total", "raw", "outcome=\"too_long\""), 3);
    finish(&bed, &functions).await;
}

/// What a shell does with curl; it gives its questions up until there is a file `go`.
const BOOTSTRAP: &str = r#"#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime"
until [ -e go ]; do curl -s --max-time 0.1 "$api/invocation/next" >/dev/null; echo again >>asked; done
>went
while :; do
  headers=$(mktemp)
  event=$(curl -sS -D "$headers" "$api/invocation/next") || exit 1
  id=$(grep -i '^lambda-runtime-aws-request-id:' "$headers" | tr -d '\r' | cut -d' ' -f2)
  rm "$headers"
  case $event in
    *flood*) head -c 1000000 /dev/zero | tr '\0' '\n' | sed 's/^/x/'; head -c 100000 /dev/zero | tr '\0' y; echo ;;
  esac
  curl -sS -X POST "$api/invocation/$id/response" -d "{\"got\":$event,\"pid\":$$}" >/dev/null
done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_of_shell_and_curl_works_and_may_write_without_end() {
    let mut bed = Bed::new(&[("bootstrap", BOOTSTRAP)]);
    bed.add("shell", Runtime::Command, "").min_processes = 1;
    let functions = bed.start();
    let asked = bed.folder.join("asked");
    eventually("it asks", || fs::read_to_string(&asked).unwrap_or_default().lines().count() > 2)
        .await;
    bed.write("go", "");
    eventually("it goes", || bed.folder.join("went").exists()).await;
    let first = invoke(&functions, "shell", json!({ "a": 1 })).await.expect("a result");
    assert_eq!(first["got"], json!({ "a": 1 }));
    let flood = invoke(&functions, "shell", json!("flood")).await.expect("a result");
    assert_eq!(flood["pid"], first["pid"]);
    eventually("lines are lost", || bed.count("log_lines_lost_total", "shell", "") > 100_000).await;
    finish(&bed, &functions).await;
    assert!(!is_alive(first["pid"].as_i64().expect("a pid")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_process_that_does_not_want_to_go() {
    let stubborn = "process.on('SIGTERM', () => {}); const { spawn } = require('node:child_process');\n\
        const children = [1, 2, 3].map(() => spawn('sh', ['-c', \"trap '' TERM; while :; do sleep 1000; done\"]).pid);\n\
        exports.handler = async () => [process.pid, ...children];\n\
        exports.exits = async () => { require('node:fs').writeFileSync('pids', children.join(' ')); process.exit(0); };";
    let mut bed = Bed::new(&[("index.js", stubborn)]);
    bed.add("stubborn", Runtime::Node, "index.handler");
    bed.add("exits", Runtime::Node, "index.exits");
    let functions = bed.start();
    assert_eq!(failure(invoke(&functions, "exits", json!({})).await).0, "Runtime.ExitError");
    let left = fs::read_to_string(bed.folder.join("pids")).expect("written");
    for pid in left.split(' ') {
        eventually("the group is gone", || !is_alive(pid.parse().expect("a pid"))).await;
    }
    let pids = invoke(&functions, "stubborn", json!({})).await.expect("a result");
    let pids: Vec<_> = pids.as_array().expect("a list").iter().filter_map(Value::as_i64).collect();
    assert!(pids.len() == 4 && pids.iter().all(|pid| is_alive(*pid)));
    finish(&bed, &functions).await;
    for pid in pids {
        eventually("killed", || !is_alive(pid)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_crashes_leaves_no_process() {
    let guard = Guard::start();
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", "trap '' TERM HUP; sleep 1000 & wait; sleep 1000"]).process_group(0);
    let [mut child, mut other] = [(), ()].map(|()| command.spawn().expect("a shell"));
    let groups = [&child, &other].map(|child| guard.watch(child).expect("a group"));
    let [group, over] = groups;
    drop(over);
    within(other.wait()).await.expect("killed");
    std::mem::forget(group);
    assert!(child.try_wait().expect("known").is_none());
    guard.end().await;
    within(child.wait()).await.expect("killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_cannot_start_says_so_at_once_and_is_tried_again() {
    let mut bed = Bed::new(&[
        ("never", "#!/bin/sh\nexec sleep 1000\n"),
        ("python", "#!/bin/sh\necho /usr/bin/python3: No module named awslambdaric >&2; exit 1\n"),
        ("gone", "#!/bin/sh\necho what it said >&2; kill -9 $$\n"),
    ]);
    bed.timings.init = Duration::from_millis(200);
    bed.add("never", Runtime::Command, "").command = vec!["./never".to_owned()];
    bed.add("python", Runtime::Python, "app.handler").command = vec!["./python".to_owned()];
    bed.add("gone", Runtime::Command, "").command = vec!["./gone".to_owned()];
    bed.add("nothing", Runtime::Command, "").command = vec!["./nothing".to_owned()];
    bed.add("mended", Runtime::Command, "").command = vec!["./mended".to_owned()];
    let functions = bed.start();
    for (name, kind, part) in [
        ("never", "Sandbox.Timedout", "did not ask for work within 200ms"),
        ("python", "Runtime.ExitError", "pip install awslambdaric"),
        ("gone", "Runtime.ExitError", "signal 9; it wrote last: what it said"),
        ("nothing", "Runtime.InvalidEntrypoint", "No such file"),
        ("mended", "Runtime.InvalidEntrypoint", "No such file"),
    ] {
        let (found, message) = failure(invoke(&functions, name, json!({})).await);
        assert!(found == kind && message.contains(part), "{name}: {found}: {message}");
        eventually(name, || bed.count("restarts_total", name, "reason=\"init\"") >= 1).await;
    }
    bed.write("go", "");
    bed.write("mended", BOOTSTRAP);
    let until = Instant::now() + PATIENCE;
    while let Err(error) = invoke(&functions, "mended", json!({})).await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    finish(&bed, &functions).await;
}

async fn ask_raw(port: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("connected");
    // A refusal may come before all is written.
    _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Requests that no process of ours sends, and how each is answered.
fn strange_requests(api: &str, port: &str) -> Vec<(String, &'static str)> {
    let close = "Connection: close\r\n";
    let ours = format!("Host: {api}\r\n{close}");
    let runtime = "/2018-06-01/runtime";
    vec![
        (
            format!("GET {runtime}/invocation/next HTTP/1.1\r\nHost: evil.example\r\n{close}\r\n"),
            "403",
        ),
        (
            format!("GET {runtime}/invocation/next HTTP/1.1\r\nHost: 127.0.0.1\r\n{close}\r\n"),
            "403",
        ),
        (format!("GET {runtime}/invocation/next HTTP/1.1\r\n{close}\r\n"), "403"),
        (format!("GET {runtime}/invocation/next HTTP/1.1\r\n{ours}Host: {api}\r\n\r\n"), "403"),
        (format!("GET {runtime}/invocation/next HTTP/1.1\r\n{ours}Origin: null\r\n\r\n"), "403"),
        (format!("GET /ping HTTP/1.1\r\n{ours}\r\n"), "200"),
        (
            format!("GET /ping HTTP/1.1\r\nHost: LocalHost:{port}\r\nConnection: close\r\n\r\n"),
            "200",
        ),
        (format!("GET /2020-01-01/extension/register HTTP/1.1\r\n{ours}\r\n"), "404"),
        (
            format!("POST {runtime}/invocation/next HTTP/1.1\r\n{ours}Content-Length: 0\r\n\r\n"),
            "404",
        ),
        (format!("GET {runtime}/invocation/next/more HTTP/1.1\r\n{ours}\r\n"), "404"),
        (
            format!(
                "POST {runtime}/invocation/x/response HTTP/1.1\r\n{ours}Content-Length: 2\r\n\r\n{{}}"
            ),
            "400",
        ),
        (
            format!(
                "POST {runtime}/invocation/{}/error HTTP/1.1\r\n{ours}Content-Length: 2\r\n\r\n{{}}",
                uuid::Uuid::new_v4()
            ),
            "400",
        ),
        (
            format!("POST {runtime}/init/error HTTP/1.1\r\n{ours}Content-Length: 2\r\n\r\n{{}}"),
            "403",
        ),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\n{ours}X: {}\r\n\r\n", "x".repeat(16 << 20)), "431"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_garbage_are_refused_and_harm_nothing() {
    let mut bed = handlers();
    bed.add("environment", Runtime::Node, "index.environment");
    let functions = bed.start();
    let environment = invoke(&functions, "environment", json!({})).await.expect("a result");
    let api = environment["AWS_LAMBDA_RUNTIME_API"].as_str().expect("an address");
    let port = api.strip_prefix("127.0.0.1:").expect("a loopback port");
    for (request, status) in strange_requests(api, port) {
        let answer = ask_raw(port, &request).await;
        let start = request.get(..80.min(request.len())).unwrap_or_default();
        // Of a head without end the refusal may be lost, as more comes than is read.
        let is_cut = answer.is_empty() && status == "431";
        assert!(
            is_cut || answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{start:?}: {answer}"
        );
        assert!(
            status == "200" || status == "431" || status == "400" || answer.contains("errorType"),
            "{answer}"
        );
    }
    let again = invoke(&functions, "environment", json!({})).await.expect("a result");
    assert_eq!(again["AWS_LAMBDA_RUNTIME_API"], api, "the same process");
    finish(&bed, &functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_started_anew_when_their_files_change() {
    let code = |version: &str| {
        format!(
            "exports.handler = async (event) => {{ await new Promise((r) => setTimeout(r, event.ms)); \
             return [{version}, process.pid]; }};"
        )
    };
    let mut bed = Bed::new(&[("lib/index.js", &code("1"))]);
    bed.watches = true;
    bed.add("chat", Runtime::Node, "lib/index.handler");
    let functions = bed.start();
    let first = invoke(&functions, "chat", json!({"ms": 0})).await.expect("a result");
    assert_eq!(first[0], 1);
    let slow = invoke(&functions, "chat", json!({"ms": 1_000}));
    let after = async {
        eventually("it has begun", || functions.list(|_| 0)[0].in_flight == 1).await;
        bed.write("lib/index.js", &code("2"));
        while invoke(&functions, "chat", json!({"ms": 0})).await.expect("a result")[0] == 1 {}
    };
    let (slow, ()) = tokio::join!(slow, after);
    assert_eq!(slow.expect("what had begun is finished")[1], first[1]);
    assert!(bed.count("restarts_total", "chat", "reason=\"outdated\"") >= 1);
    bed.write("lib/index.js", "this is no JavaScript");
    let mut error = None;
    while error.is_none() {
        error = invoke(&functions, "chat", json!({"ms": 0})).await.err();
    }
    bed.write("lib/index.js", &code("3"));
    let mended = async {
        while invoke(&functions, "chat", json!({"ms": 0})).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, mended).await.expect("it works again");
    finish(&bed, &functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_come_with_the_load_and_go_without() {
    let mut bed = Bed::new(&[(
        "index.js",
        "let busy = 0, most = 0; exports.handler = async (event) => { busy++; most = Math.max(most, busy); \
         await new Promise((r) => setTimeout(r, event.ms)); busy--; return [process.pid, most]; };",
    )]);
    bed.timings.idle = Duration::from_millis(300);
    let settings = bed.add("many", Runtime::Node, "index.handler");
    (settings.max_processes, settings.min_processes) = (3, 1);
    let settings = bed.add("shared", Runtime::Node, "index.handler");
    (settings.max_processes, settings.concurrency) = (1, 4);
    let functions = bed.start();
    let all = |name: &'static str, count: usize| {
        let functions = &functions;
        futures_util::future::join_all(
            (0..count).map(move |_| invoke(functions, name, json!({ "ms": 400 }))),
        )
    };
    let results: Vec<_> =
        all("many", 9).await.into_iter().map(|result| result.expect("a result")).collect();
    let pids: std::collections::BTreeSet<_> =
        results.iter().map(|result| result[0].as_i64()).collect();
    assert!((2..=3).contains(&pids.len()), "{pids:?}");
    assert!(results.iter().all(|result| result[1] == 1), "one at a time");
    eventually("the idle end", || bed.count("processes", "many", "") == 1).await;
    assert!(bed.count("restarts_total", "many", "reason=\"idle\"") >= 1);
    let results: Vec<_> =
        all("shared", 8).await.into_iter().map(|result| result.expect("a result")).collect();
    assert!(results.iter().any(|result| result[1].as_i64() > Some(1)), "{results:?}");
    assert!(results.iter().all(|result| result[1].as_i64() <= Some(4)), "{results:?}");
    finish(&bed, &functions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_what_is_under_way_as_long_as_it_may() {
    let mut bed = Bed::new(&[(
        "index.js",
        "exports.handler = async (event) => { require('node:fs').writeFileSync('begun', ''); \
         await new Promise((r) => setTimeout(r, event.ms)); return 'done'; };",
    )]);
    bed.add("slow", Runtime::Node, "index.handler");
    for (ms, grace, expected) in
        [(500, PATIENCE, Ok(json!("done"))), (60_000, Duration::from_millis(10), Err(()))]
    {
        let functions = bed.start();
        let begun = bed.folder.join("begun");
        let ended = async {
            eventually("begun", || begun.exists()).await;
            functions.shut_down(grace).await;
            let refused = invoke(&functions, "slow", json!({ "ms": 0 })).await;
            assert!(matches!(refused, Err(InvokeError::Unreachable(_))), "{refused:?}");
        };
        let (result, ()) = within(futures_util::future::join(
            invoke(&functions, "slow", json!({ "ms": ms })),
            ended,
        ))
        .await;
        assert_eq!(result.map_err(drop), expected);
        fs::remove_file(begun).expect("there");
        assert_eq!(bed.count("processes", "slow", ""), 0);
    }
}

#[test]
fn the_bootstrap_fits_into_a_pipe() {
    assert!(include_str!("bootstrap.mjs").len() < 64 << 10);
}
