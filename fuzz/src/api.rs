//! Any bytes as what clients of Firecracker's API send: requests are found whole, in any pieces, and change the machine as a model says
//! or not at all.

use std::time::Duration;

use serde_json::{Map, Value, json};
use vmcell::Seccomp;
use vmcell_firecracker::api::{Action, Call, route};
use vmcell_firecracker::http::{Method, Parsed, Request, parse};
use vmcell_firecracker::log::{Level, Log, Settings};
use vmcell_firecracker::machine::{Machine, Setup};

use crate::alloc::Meter;
use crate::clock::within;
use crate::input::Script;

/// The longest body.
const MOST_BODY: usize = 2000;
/// The most that the metadata service holds.
const MOST_METADATA: usize = 1000;
/// What all may hold, beside so many times as much as the input has.
const MOST_HELD: i64 = 1 << 20;
const TIMES: i64 = 400;
const PATIENCE: Duration = Duration::from_secs(2);

/// What inputs may be made of, one a byte.
const WORDS: &[&str] = &[
    "GET ",
    "PUT ",
    "PATCH ",
    "DELETE ",
    "POST ",
    "/",
    "/version",
    "/vm",
    "/vm/config",
    "/machine-config",
    "/balloon",
    "/balloon/statistics",
    "/balloon/hinting/start",
    "/mmds",
    "/mmds/config",
    "/entropy",
    "/actions",
    "/cpu-config",
    "/drives/a",
    "/network-interfaces/e",
    "/snapshot/load",
    "/pmem/p",
    "/hotplug/memory",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "Content-Length: ",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\n",
    "0",
    "1",
    "2",
    "17",
    "46",
    "\r\n\r\n",
    "{",
    "}",
    ",",
    ":",
    "null",
    "true",
    "false",
    "\"vcpu_count\":",
    "\"mem_size_mib\":",
    "\"smt\":",
    "\"huge_pages\":",
    "\"2M\"",
    "\"cpu_template\":",
    "\"T2\"",
    "\"None\"",
    "\"amount_mib\":",
    "\"deflate_on_oom\":",
    "\"rate_limiter\":",
    "\"bandwidth\":",
    "\"size\":",
    "\"refill_time\":",
    "\"action_type\":",
    "\"SendCtrlAltDel\"",
    "\"a\":",
    "[",
    "]",
    "18446744073709551616",
    "-1",
];

/// Runs one input: bytes of a connection, words of which they are made, or requests of a word for a method and a path and a body each.
pub fn run(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let stream = match choice % 3 {
        0 => rest.to_vec(),
        1 => rest.iter().flat_map(|byte| WORDS[usize::from(*byte) % WORDS.len()].bytes()).collect(),
        _ => rest.split(|byte| *byte == 0).flat_map(made).collect(),
    };
    let len = i64::try_from(stream.len()).expect("it is short");
    let mut meter = Meter::new(MOST_HELD + TIMES * len);
    let log = Log::new("fuzz");
    log.set(&Settings { level: Some(Level::Off), ..Settings::default() }).expect("no file is opened");
    let setup = Setup { id: "fuzz".to_owned(), seccomp: Seccomp::Off, most_metadata: MOST_METADATA };
    let mut served = Served { machine: Machine::new(setup, log), model: Model::default() };
    let mut left = stream.as_slice();
    for _ in 0..64 {
        let parsed = within(PATIENCE, || meter.run(|| parse(left, MOST_BODY)));
        let Ok(Parsed::Whole(request, taken)) = parsed else { return };
        assert!(taken > 0 && taken <= left.len() && request.body.len() <= MOST_BODY, "more than there is");
        check_pieces(&left[..taken], &request);
        served.serve(&request, &mut meter);
        left = &left[taken..];
    }
}

/// A request whose body is as long as it says: a byte for the method, one for the path, and the body.
fn made(part: &[u8]) -> Vec<u8> {
    let [method, path, body @ ..] = part else { return Vec::new() };
    let (method, path) = (WORDS[usize::from(*method) % 5], WORDS[5 + usize::from(*path) % 18]);
    let head = format!("{method}{path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A request is there when its last byte is, and is the same with other headers beside its own.
fn check_pieces(bytes: &[u8], request: &Request) {
    for len in [0, 1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let parsed = parse(&bytes[..len], MOST_BODY);
        assert!(matches!(parsed, Ok(Parsed::Partial { .. })), "{len} of {} bytes: {parsed:?}", bytes.len());
    }
    let connection = if request.keeps_alive { "keep-alive" } else { "close" };
    let (method, path, len) = (request.method.name(), &request.path, request.body.len());
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\ncontent-length: {len}\r\nconnection: {connection}\r\n\r\n");
    let again = [head.as_bytes(), &request.body, b"more"].concat();
    let taken = again.len() - 4;
    // A path with "http://" in front may have another one in it.
    if !path.starts_with("http://") && !path.is_empty() {
        assert_eq!(parse(&again, MOST_BODY), Ok(Parsed::Whole(request.clone(), taken)), "written again: {head:?}");
    }
}

struct Served {
    machine: Machine,
    model: Model,
}

/// What the machine is, as far as it is modelled.
struct Model {
    config: Map<String, Value>,
    balloon: Option<u64>,
    /// What the guest is told, once it was put.
    metadata: Option<Value>,
}

impl Default for Model {
    fn default() -> Self {
        let defaults = json!({"vcpu_count": 1, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false, "huge_pages": "None"});
        Self { config: defaults.as_object().cloned().expect("an object"), balloon: None, metadata: None }
    }
}

impl Served {
    fn serve(&mut self, request: &Request, meter: &mut Meter) {
        let routed = within(PATIENCE, || meter.run(|| route(request)));
        let Ok((call, _)) = routed else { return };
        if touches_files(&call) {
            return;
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let before = self.told();
        let is_put = request.method == Method::Put;
        let expected = self.model.change(&call, is_put, &body);
        let answer = within(PATIENCE, || meter.run(|| self.machine.serve(call)));
        if let Some(expected) = expected {
            assert_eq!(answer.is_ok(), expected, "{} {}: {answer:?}", request.method.name(), request.path);
        }
        if answer.is_err() {
            assert_eq!(self.told(), before, "a request was refused and has changed something");
        }
        let (_, config, metadata) = self.told();
        assert_eq!(config, Value::Object(self.model.config.clone()), "the machine's configuration");
        assert_eq!(
            metadata,
            self.model.metadata.clone().filter(|told| !told.is_null()).unwrap_or(json!({})),
            "what the guest is told"
        );
    }

    fn told(&mut self) -> (Value, Value, Value) {
        let mut get = |call| {
            let answer = self.machine.serve(call).expect("it can be asked for at any time");
            serde_json::from_str(answer.body().expect("there is one")).expect("it is JSON")
        };
        (get(Call::GetVmConfig), get(Call::GetMachineConfig), get(Call::GetMmds))
    }
}

impl Model {
    /// Changes as the machine should. Says whether the call should be done; `None` if the model does not know.
    fn change(&mut self, call: &Call, is_put: bool, body: &Value) -> Option<bool> {
        match call {
            Call::SetMachineConfig(_) => Some(self.set_config(is_put, body)),
            Call::PutBalloon(_) => {
                let amount = body["amount_mib"].as_u64()?;
                let fits = amount <= self.mib() && body["free_page_hinting"] != json!(true);
                if fits {
                    self.balloon = Some(amount);
                }
                Some(fits)
            }
            Call::PutMmds(_) => Some(self.tell(body.clone())),
            Call::PatchMmds(_) => {
                let mut told = self.metadata.clone();
                if let Some(told) = &mut told {
                    merge(told, body);
                }
                Some(told.is_some_and(|told| self.tell(told)))
            }
            Call::PatchVm(_) | Call::PatchBalloon(_) | Call::PatchBalloonStatistics(_) | Call::GetBalloonStatistics => {
                Some(false)
            }
            Call::Action(_) | Call::Unsupported { .. } | Call::PutMmdsConfig(_) => Some(false),
            Call::GetBalloon => Some(self.balloon.is_some()),
            Call::GetInstance | Call::GetVersion | Call::GetVmConfig | Call::GetMachineConfig | Call::GetMmds => {
                Some(true)
            }
            _ => None,
        }
    }

    fn mib(&self) -> u64 {
        self.config["mem_size_mib"].as_u64().expect("a number")
    }

    fn set_config(&mut self, is_put: bool, body: &Value) -> bool {
        let mut config = self.config.clone();
        if is_put {
            let defaults = json!({"smt": false, "track_dirty_pages": false, "huge_pages": "None"});
            config.extend(defaults.as_object().cloned().expect("an object"));
        }
        for (name, value) in body.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            if name == "cpu_template" && value == "None" {
                config.remove(name);
            } else {
                config.insert(name.clone(), value.clone());
            }
        }
        let (vcpus, mib) = (config["vcpu_count"].as_u64().unwrap_or(0), config["mem_size_mib"].as_u64().unwrap_or(0));
        let fits = (1..=32).contains(&vcpus)
            && (config["smt"] == json!(false) || vcpus == 1 || vcpus % 2 == 0)
            && mib >= 16
            && (config["huge_pages"] == "None" || mib % 2 == 0)
            && self.balloon.is_none_or(|target| target <= mib)
            && config.get("cpu_template").is_none_or(|template| template != "V1N1");
        if fits {
            self.config = config;
        }
        fits
    }

    fn tell(&mut self, told: Value) -> bool {
        let fits = told.to_string().len() <= MOST_METADATA;
        if fits {
            self.metadata = Some(told);
        }
        fits
    }
}

/// A merge patch as RFC 7396 has it.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, change) in changes {
        let members = target.as_object_mut().expect("an object");
        if change.is_null() {
            members.remove(name);
        } else {
            let mut member = members.remove(name).unwrap_or(Value::Null);
            merge(&mut member, change);
            members.insert(name.clone(), member);
        }
    }
}

/// Whether a file or a device of the host is opened.
fn touches_files(call: &Call) -> bool {
    matches!(
        call,
        Call::PutBootSource(_)
            | Call::PutDrive(_)
            | Call::PutNetworkInterface(_)
            | Call::PutVsock(_)
            | Call::PutLogger(_)
            | Call::PutMetrics(_)
            | Call::CreateSnapshot(_)
            | Call::LoadSnapshot(_)
            | Call::PutSerial(_)
            | Call::Action(Action::InstanceStart)
    )
}

/// Inputs that reach far.
///
/// # Panics
/// If a word is none of those known.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| Script::new().bytes(&[0]).bytes(text.as_bytes()).done();
    let word = |word: &str| WORDS.iter().position(|known| *known == word).expect("it is known") as u8;
    let requests = |requests: &[(&str, &str, &str)]| {
        let part = |(method, path, body): &(&str, &str, &str)| {
            [&[word(method) + if word(method) == 0 { 5 } else { 0 }, word(path) - 5 + 18][..], body.as_bytes()].concat()
        };
        Script::new().bytes(&[2]).bytes(&requests.iter().map(part).collect::<Vec<_>>().join(&0)).done()
    };
    vec![
        (
            "pipelined",
            text(
                "GET / HTTP/1.1\r\n\r\nGET /vm/config HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /mmds HTTP/1.1\r\n\r\n",
            ),
        ),
        ("waits", text("PUT /mmds HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}")),
        ("chunked", text("PUT /mmds HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")),
        ("too-long", text("PUT /mmds HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n{}")),
        (
            "url",
            text("\r\n\r\nGET http://localhost/version HTTP/1.1\r\nHost: a\r\n\r\nDELETE /drives/a HTTP/1.1\r\n\r\n"),
        ),
        (
            "machine",
            requests(&[
                ("PUT ", "/machine-config", r#"{"vcpu_count":2,"mem_size_mib":17}"#),
                ("PATCH ", "/machine-config", r#"{"huge_pages":"2M"}"#),
                ("PATCH ", "/machine-config", r#"{"smt":true,"cpu_template":"T2"}"#),
                ("PATCH ", "/machine-config", r#"{"vcpu_count":3}"#),
                ("PATCH ", "/machine-config", r#"{"cpu_template":"None"}"#),
                ("GET ", "/machine-config", ""),
            ]),
        ),
        (
            "balloon",
            requests(&[
                ("PUT ", "/balloon", r#"{"amount_mib":128,"deflate_on_oom":true}"#),
                ("PATCH ", "/machine-config", r#"{"mem_size_mib":64}"#),
                ("PUT ", "/balloon", r#"{"amount_mib":129,"deflate_on_oom":true}"#),
                ("GET ", "/balloon", ""),
                ("PATCH ", "/balloon/hinting/start", ""),
            ]),
        ),
        (
            "metadata",
            requests(&[
                ("PATCH ", "/mmds", r#"{"a":1}"#),
                ("PUT ", "/mmds", r#"{"a":{"b":1.5,"c":[1,null]}}"#),
                ("PATCH ", "/mmds", r#"{"a":{"b":null},"d":"e"}"#),
                ("PATCH ", "/mmds", "[]"),
                ("PUT ", "/mmds", "null"),
            ]),
        ),
        ("entropy", requests(&[("PUT ", "/entropy", r#"{"rate_limiter":{"bandwidth":{"size":1,"refill_time":1}}}"#)])),
        ("unknown", requests(&[("PUT ", "/machine-config", r#"{"vcpu_count":1,"mem_size_mib":16,"a":1}"#)])),
    ]
}
