//! The page in Debian's Chromium, which its driver is told what to do with (WebDriver, by HTTP).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Page;
use super::page_test::page;
use crate::host::host_test::Bench;
use crate::machine::guest::Usage;

const LIMIT: Duration = Duration::from_secs(60);

/// A browser, which ends with this.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    fn open(page: &Page) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = command.spawn().expect("Debian's chromium-driver");
        let mut browser = Self { driver, port, session: String::new() };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(began.elapsed() < LIMIT, "chromedriver does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        // It may run as root, in a container.
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1280,1600"];
        let wanted = json!({ "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" } });
        let session = browser.ask("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = session["sessionId"].as_str().unwrap_or_else(|| panic!("{session}")).to_owned();
        browser.tell("/url", &json!({ "url": format!("http://{}/", page.address()) }));
        browser
    }

    fn ask(&self, method: &str, path: &str, what: &Value) -> Value {
        let body = if method == "POST" { what.to_string() } else { String::new() };
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        // The browser that the driver starts has the connection as well, so its end does not come.
        let mut answer = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            assert!(answer.read_line(&mut line).unwrap() > 0, "chromedriver gave no answer to {path}");
            let lower = line.to_ascii_lowercase();
            length = lower.strip_prefix("content-length:").map_or(length, |length| length.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).unwrap();
        let value: Value = serde_json::from_slice(&body).unwrap();
        value["value"].clone()
    }

    fn tell(&self, path: &str, what: &Value) -> Value {
        let told = self.ask("POST", &format!("/session/{}{path}", self.session), what);
        assert!(told["error"].is_null(), "{path} {what}: {told}");
        told
    }

    /// What an expression is in the page.
    fn value(&self, expression: &str) -> Value {
        self.tell("/execute/sync", &json!({ "script": format!("return {expression}"), "args": [] }))
    }

    /// Waits until an expression is true.
    fn until(&self, expression: &str) {
        let began = Instant::now();
        while self.value(expression) != json!(true) {
            assert!(began.elapsed() < LIMIT, "{expression} in {}", self.value("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is read aloud for an element: its role, and its name.
    fn aloud(&self, selector: &str) -> (String, String) {
        let found = self.tell("/element", &json!({ "using": "css selector", "value": selector }));
        let element = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        let get =
            |what: &str| self.ask("GET", &format!("/session/{}/element/{element}/{what}", self.session), &Value::Null);
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        (text(get("computedrole")), text(get("computedlabel")))
    }

    /// What the browser complains about: scripts that fail, and what the policy forbids.
    fn complaints(&self) -> Vec<String> {
        let log = self.tell("/se/log", &json!({ "type": "browser" }));
        log.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null)
            }));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[test]
#[ignore = "needs Debian's chromium-driver: cargo xtask test --check page"]
fn the_page_loads_and_changes_as_values_do() {
    let bench = Bench::new();
    let page = page(&bench);
    bench.deploy(&Bench::text("", "count = 2")).unwrap();
    let browser = Browser::open(&page);
    browser.until("document.querySelectorAll('#apps tr').length === 1");
    browser.until("document.querySelector('#apps .state').textContent === 'healthy'");
    browser.until("document.querySelector('#link').textContent === 'Live'");
    assert_eq!(browser.value("document.querySelector('#apps tr').innerText.includes('2 of 2')"), true);
    let usage = Usage { memory: Some(77 << 20), cpu: Duration::from_secs(1), ..Usage::default() };
    *bench.fakes.started.lock().unwrap()[0].usage.lock().unwrap() = usage;
    browser.until("document.querySelector('#apps tr').innerText.includes('77.0 MiB')");
    browser.until("document.querySelectorAll('#plots polyline')[1].getAttribute('points').split(' ').length >= 2");
    let (role, name) = browser.aloud("#plots figure:nth-child(2) svg");
    assert!(
        ["image", "img"].contains(&role.as_str()) && name.starts_with("Memory now: VMs 77.0 MiB, host "),
        "{role} {name}"
    );
    assert_eq!(browser.aloud("#find"), ("searchbox".to_owned(), "Find".to_owned()));
    // One app more, while the page is open.
    bench.deploy("name = \"other\"\nimage = \"image\"\n").unwrap();
    browser.until("document.querySelectorAll('#apps tr').length === 2");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
#[ignore = "needs Debian's chromium-driver: cargo xtask test --check page"]
fn what_a_guest_says_is_text_and_nothing_else() {
    let bench = Bench::new();
    let page = page(&bench);
    bench.deploy(&Bench::text("", "")).unwrap();
    let log = bench.host.parts.folder.log("web", 1).unwrap();
    let evil = "<script>window.taken = 1</script><img src=/x onerror='window.taken = 2'>";
    std::fs::write(&log, format!("first\n{evil}\n")).unwrap();
    let browser = Browser::open(&page);
    browser.until("document.querySelectorAll('#apps button').length === 1");
    browser.value("document.querySelector('#apps button').click()");
    browser.until("document.querySelectorAll('#log div').length === 2");
    let mut more = std::fs::File::options().append(true).open(&log).unwrap();
    writeln!(more, "</div><b onclick=x>more").unwrap();
    browser.until("document.querySelectorAll('#log div').length === 3");
    let said = browser.value("[...document.querySelectorAll('#log div')].map((line) => line.lastChild.data)");
    assert_eq!(said, json!(["first", evil, "</div><b onclick=x>more"]));
    bench.fakes.started.lock().unwrap()[0].end(&format!("it said {evil}"));
    browser.until("!document.querySelector('#trouble').hidden");
    browser.until("document.querySelector('#trouble').textContent.includes('onerror')");
    assert_eq!(browser.value("document.querySelectorAll('#log img, #trouble img, #notes img, main script').length"), 0);
    assert_eq!(browser.value("typeof window.taken"), "undefined");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
#[ignore = "needs Debian's chromium-driver: cargo xtask test --check page"]
fn a_crash_is_seen_with_its_reason_and_last_lines_and_so_is_what_comes_after_it() {
    let bench = Bench::new();
    let page = page(&bench);
    bench.deploy(&Bench::text("", "")).unwrap();
    std::fs::write(bench.host.parts.folder.log("web", 1).unwrap(), "about to fall\n").unwrap();
    let browser = Browser::open(&page);
    browser.until("document.querySelector('#apps .state')?.textContent === 'healthy'");
    assert_eq!(browser.value("document.querySelector('#trouble').hidden"), true);
    bench.fakes.started.lock().unwrap()[0].end("the guest's kernel panicked");
    browser.until("!document.querySelector('#trouble').hidden");
    let (role, _) = browser.aloud("#trouble");
    assert_eq!(role, "alert");
    // It is started again after a second, and the note of the end stays.
    browser.until("document.querySelector('#trouble').hidden");
    browser.until("document.querySelector('#apps .state').textContent === 'healthy'");
    let notes = browser.value("[...document.querySelectorAll('#notes li')].map((note) => note.textContent).join('|')");
    let notes = notes.as_str().unwrap();
    assert!(notes.contains("the guest's kernel panicked") && notes.contains("about to fall"), "{notes}");
    browser.value("document.querySelector('#apps button').click()");
    browser.until("document.querySelector('#vms tr')?.children[3].textContent === '1'");
    drop(page);
    browser.until("document.querySelector('#link').textContent.includes('does not answer')");
}

#[test]
#[ignore = "needs Debian's chromium-driver: cargo xtask test --check page"]
fn a_hundred_apps_are_shown_and_one_is_found() {
    let bench = Bench::new();
    let page = page(&bench);
    for number in 0..100 {
        bench.deploy(&format!("name = \"app-{number:02}\"\nimage = \"image\"\n")).unwrap();
    }
    let browser = Browser::open(&page);
    browser.until("document.querySelectorAll('#apps tr').length === 100");
    browser.until("[...document.querySelectorAll('#apps .state')].every((state) => state.textContent === 'healthy')");
    browser.value("(document.querySelector('#find').value = 'app-42', document.querySelector('#find').dispatchEvent(new Event('input')))");
    browser.until("document.querySelectorAll('#apps tr').length === 1");
    // A state that comes is shown in far less time than lies between two of them.
    let took = browser.value("(document.querySelector('#find').value = '', performance.now())").as_f64().unwrap();
    browser.value("document.querySelector('#find').dispatchEvent(new Event('input'))");
    let took = browser.value("performance.now()").as_f64().unwrap() - took;
    assert!(took < 2000.0, "{took} ms");
    assert_eq!(browser.value("document.querySelectorAll('#apps tr').length"), 100);
}
