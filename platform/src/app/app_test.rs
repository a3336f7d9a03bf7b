use std::path::Path;
use std::time::Duration;

use super::{App, check_told, parse};

const WHOLE: &str = r#"
name = "web"
image = "site"
command = ["/bin/serve", "--port", "8080"]
secrets = ["TOKEN"]
size = "medium"
memory = "512M"
idle = "5m"
[env]
MODE = "fast"
[[services]]
port = 8080
names = ["www.Example.com"]
allow = ["front"]
check = { path = "/health", interval = "2s" }
[[volumes]]
name = "data"
path = "/data"
size = "1G"
snapshots = { every = "1d", keep = "5d" }
"#;

fn read(text: &str) -> Result<App, String> {
    parse(text, "app.toml", Path::new("/home/me")).map_err(|fault| fault.message)
}

#[test]
fn an_app_that_reads_a_copy_may_be_told_by_another_host_and_a_volume_without_a_size_may_not() {
    let volume = "name = \"web\"\nimage = \"site\"\n[[volumes]]\nname = \"data\"\npath = \"/data\"\n";
    let mut app = read(&format!("{volume}replica_of = \"db\"\n")).unwrap();
    check_told(&app).unwrap();
    app.volumes[0].replica_of = None;
    assert!(check_told(&app).unwrap_err().message.contains("wrong volumes"));
}

#[test]
fn a_whole_app_is_understood() {
    let app = read(WHOLE).unwrap();
    assert_eq!((app.name.as_str(), app.image.to_str().unwrap()), ("web", "/home/me/site"));
    assert_eq!((app.vcpus, app.memory_mib, app.count), (2, 512, None));
    assert_eq!((app.idle, app.stop_grace), (Some(Duration::from_secs(300)), Duration::from_secs(10)));
    let service = &app.services[0];
    assert_eq!(
        (service.port, service.names[0].as_str(), service.allow[0].as_str()),
        (8080, "www.example.com", "front")
    );
    assert_eq!((service.check.path.as_deref(), service.check.interval), (Some("/health"), Duration::from_secs(2)));
    assert_eq!(app.volumes[0].size, 1 << 30);
    let snapshots = app.volumes[0].snapshots.unwrap();
    assert_eq!((snapshots.every.as_secs(), snapshots.keep.as_secs()), (86_400, 5 * 86_400));
    let kept: App = serde_json::from_str(&serde_json::to_string(&app).unwrap()).unwrap();
    assert_eq!(kept, app);
}

/// What is changed in the whole app, and how the error begins and what it holds.
const WRONG: &[(&str, &str, &str, &str)] = &[
    ("name = \"web\"", "name = \"Web\"", "app.toml:2:8:", "lower-case"),
    ("name = \"web\"\n", "\n", "app.toml:", "missing field `name`"),
    ("image = \"site\"", "image = \"\"", "app.toml:3:9:", "allowed is a path"),
    (
        "image = \"site\"",
        "image = 7",
        "app.toml:3:9:",
        "`image = 7` has integer `7`; allowed is text in quotation marks",
    ),
    ("image = \"site\"", "image = \"site\"\nimage = \"b\"", "app.toml:4:1:", "`image = \"b\"`: this is given twice"),
    ("command = [\"/bin/serve\",", "command = [3,", "app.toml:4:12:", "allowed is text in quotation marks"),
    (
        "[\"/bin/serve\", \"--port\", \"8080\"]",
        "\"serve\"",
        "app.toml:4:11:",
        "allowed is a list such as [\"one\", \"two\"]",
    ),
    ("idle = \"5m\"", "count = \"2\"", "app.toml:8:9:", "allowed is a whole number, without quotation marks"),
    ("[env]\nMODE = \"fast\"", "env = \"A=B\"", "app.toml:9:7:", "allowed is a table such as { NAME = \"value\" }"),
    ("[[services]]", "[services]", "app.toml:11:1:", "has a table; allowed is [[services]], for each of them"),
    (
        "{ path = \"/health\", interval = \"2s\" }",
        "\"/\"",
        "app.toml:15:9:",
        "allowed is a table such as { path = \"/health\" }",
    ),
    ("{ every = \"1d\", keep = \"5d\" }", "\"1d\"", "app.toml:20:13:", "allowed is a table such as { every = \"1d\""),
    ("port = 8080", "port = 8080\nidle = \"5m\"", "app.toml:13:1:", "put it above the first line that begins with `[`"),
    ("\"TOKEN\"", "\"A B\"", "app.toml:5:12:", "underscores"),
    ("MODE", "TOKEN", "app.toml:5:12:", "TOKEN is in env and in secrets"),
    ("\"medium\"", "\"giant\"", "app.toml:6:8:", "allowed are tiny, small, medium, large, huge"),
    ("\"512M\"", "\"3M\"", "app.toml:7:10:", "64M to 1024G"),
    ("idle = \"5m\"", "idle = \"soon\"", "app.toml:8:8:", "such as \"30s\""),
    ("idle = \"5m\"", "vcpus = 65", "app.toml:8:9:", "allowed are 1 to 64"),
    ("idle = \"5m\"", "count = 2", "app.toml:8:9:", "a volume is in one VM"),
    ("idle = \"5m\"", "hosts = { alpha = 1, beta = 1 }", "app.toml:8:9:", "hosts with 2 VMs and volumes"),
    ("idle = \"5m\"", "hosts = { Alpha = 1 }", "app.toml:8:11:", "hosts: \"Alpha\"; allowed are"),
    ("idle = \"5m\"", "hosts = { alpha = 101 }", "app.toml:8:19:", "allowed are 0 to 100"),
    ("idle = \"5m\"", "hosts = { alpha = 1 }\ncount = 1", "app.toml:9:9:", "count beside hosts"),
    ("idle = \"5m\"", "hosts = { alpha = 1 }\nkernel = \"k\"", "app.toml:9:10:", "kernel beside hosts"),
    ("idle = \"5m\"", "colour = 2", "app.toml:8:1:", "unknown field `colour`"),
    ("idle = \"5m\"", "idle = ", "app.toml:8:", ""),
    ("MODE", "\"A=B\"", "app.toml:10:1:", "underscores"),
    ("port = 8080", "port = 65536", "app.toml:12:8:", "allowed are 1 to 65535"),
    ("www.Example.com", "www..com", "app.toml:13:10:", "host name"),
    ("www.Example.com", "127.0.0.1", "app.toml:13:10:", "host name"),
    ("\"front\"", "\"-\"", "app.toml:14:10:", "hyphens inside"),
    ("\"/health\"", "\"health\"", "app.toml:15:18:", "without spaces"),
    ("\"2s\"", "\"0s\"", "app.toml:15:40:", "1s to 1h"),
    ("path = \"/data\"", "path = \"/data/../etc\"", "app.toml:18:8:", "absolute path"),
    ("\"1G\"", "\"9999999999G\"", "app.toml:19:8:", "such as"),
    ("\"1d\"", "\"9s\"", "app.toml:20:23:", "every = \"9s\"; allowed are 10s to 30days"),
    ("\"1d\"", "\"daily\"", "app.toml:20:23:", "such as \"30s\""),
    ("\"5d\"", "\"11d\"", "app.toml:20:36:", "keep = \"11d\"; with this time between two, allowed are 1day to 10days"),
    ("\"5d\"", "\"23h\"", "app.toml:20:36:", "allowed are 1day to 10days"),
    (", keep = \"5d\"", "", "app.toml:20:13:", "missing field `keep`"),
    (
        "keep = \"5d\" }",
        "keep = \"5d\" }\nreplicate = { to = \"Beta\", every = \"10s\" }",
        "app.toml:21:20:",
        "lower-case",
    ),
    (
        "keep = \"5d\" }",
        "keep = \"5d\" }\nreplicate = { to = \"beta\", every = \"1s\" }",
        "app.toml:21:36:",
        "2s to 1day",
    ),
    ("keep = \"5d\" }", "keep = \"5d\" }\nreplica_of = \"db\"", "app.toml:19:8:", "a replica has that of the volume"),
    ("size = \"1G\"", "replica_of = \"db\"", "app.toml:19:14:", "neither snapshots nor replicas"),
    ("size = \"1G\"\n", "", "app.toml:17:8:", "the volume data has no size"),
];

#[test]
fn each_field_that_is_wrong_is_named_with_its_line_and_column() {
    for (right, wrong, place, why) in WRONG {
        let text = WHOLE.replacen(right, wrong, 1);
        assert_ne!(text, WHOLE, "{right}");
        let said = read(&text).unwrap_err();
        assert!(said.starts_with(place) && said.contains(why), "{wrong}: {said}");
    }
}

#[test]
fn a_port_and_a_name_are_given_once() {
    let twice = "\n[[services]]\nport = 8080\n";
    assert!(read(&format!("{WHOLE}{twice}")).unwrap_err().contains("port 8080 is given twice"));
    let twice = "\n[[services]]\nport = 81\nnames = [\"www.example.com\"]\n";
    assert!(read(&format!("{WHOLE}{twice}")).unwrap_err().contains("the name www.example.com is given twice"));
}

#[test]
fn a_text_that_is_too_long_is_refused() {
    assert!(read(&"#".repeat(300 << 10)).unwrap_err().contains("allowed are 262144"));
}
