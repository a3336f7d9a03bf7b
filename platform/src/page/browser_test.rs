//! The page in Debian's Chromium.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::Page;
use super::page_test::page;
use crate::chromium_test::Browser;
use crate::host::host_test::Bench;
use crate::machine::guest::Usage;

fn open(page: &Page) -> Browser {
    Browser::open(&format!("http://{}/", page.address()), &[])
}

#[test]
#[ignore = "needs Debian's chromium-driver: cargo xtask test --check page"]
fn the_page_loads_and_changes_as_values_do() {
    let bench = Bench::new();
    let page = page(&bench);
    bench.deploy(&Bench::text("", "count = 2")).unwrap();
    let browser = open(&page);
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
    let browser = open(&page);
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
    let browser = open(&page);
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
    let browser = open(&page);
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
