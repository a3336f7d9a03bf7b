//! Runs targets without a fuzzer: the seeds, changed seeds, and inputs by chance, the same each time.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Target;

/// The longest input that is made by chance.
const MOST_BYTES: u64 = 768;
/// How long an input may take before it counts as one that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a sweep is run.
pub struct Options {
    /// For how long.
    pub time: Duration,
    /// Which inputs come by chance.
    pub seed: u64,
}

impl Options {
    /// From the environment: `VMCELL_FUZZ_SECONDS` and `VMCELL_FUZZ_SEED`.
    pub fn from_environment(default_seconds: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let time = Duration::from_secs(number("VMCELL_FUZZ_SECONDS").unwrap_or(default_seconds));
        Self { time, seed: number("VMCELL_FUZZ_SEED").unwrap_or(1) }
    }
}

/// Runs a target; says how many inputs that were.
///
/// # Panics
/// If one fails: the message says which, and the input is kept in a file.
pub fn sweep(target: &Target, options: &Options) -> u64 {
    let corpus = corpus(target);
    let began = Instant::now();
    let mut count = 0;
    for (name, bytes) in &corpus {
        attempt(target, name, bytes);
        count += 1;
    }
    for number in options.seed.. {
        if began.elapsed() >= options.time {
            break;
        }
        let bytes = by_chance(number, &corpus);
        attempt(target, &format!("VMCELL_FUZZ_SEED={number}"), &bytes);
        count += 1;
    }
    count
}

/// The committed inputs of a target, and those it makes.
pub fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let mut corpus: Vec<_> = (target.seeds)().into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    let folder = fs::read_dir(folder("seeds", target)).into_iter().flatten().flatten();
    let files = folder.filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read(entry.path()).ok()?)));
    let mut files: Vec<_> = files.filter(|(name, _)| !corpus.iter().any(|(known, _)| known == name)).collect();
    files.sort();
    corpus.extend(files);
    corpus
}

/// A folder of this crate for a target.
pub fn folder(name: &str, target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join(target.name)
}

fn attempt(target: &Target, name: &str, bytes: &[u8]) {
    watch();
    // A panic of a device is caught by those who call it, but is a failure all the same.
    let caught_before = PANICS.with(|panics| panics.load(Ordering::Relaxed));
    let result = panic::catch_unwind(AssertUnwindSafe(|| with_limit(target, name, || (target.run)(bytes))));
    let panicked = PANICS.with(|panics| panics.load(Ordering::Relaxed)) != caught_before;
    if result.is_err() || panicked {
        let path = keep(target, bytes);
        panic!("target {}, input {name} fails; it is kept as {}", target.name, path.display());
    }
}

thread_local! {
    static PANICS: AtomicU64 = const { AtomicU64::new(0) };
}

/// Counts this process's panics, by thread.
fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.fetch_add(1, Ordering::Relaxed));
            before(info);
        }));
    });
}

/// Ends the process, with a word about the reason, if a call does not end.
fn with_limit(target: &Target, name: &str, call: impl FnOnce()) {
    thread_local! {
        static WATCH: std::sync::mpsc::Sender<Option<String>> = {
            let (sender, begun) = std::sync::mpsc::channel::<Option<String>>();
            std::thread::spawn(move || {
                while let Ok(message) = begun.recv() {
                    let Some(what) = message else { continue };
                    if matches!(begun.recv_timeout(PATIENCE), Err(std::sync::mpsc::RecvTimeoutError::Timeout)) {
                        eprintln!("{what} has not ended after {} s", PATIENCE.as_secs());
                        std::process::abort();
                    }
                }
            });
            sender
        };
    }
    // Without a thread to watch, nobody watches.
    let say = |what| WATCH.with(|watch| drop(watch.send(what)));
    say(Some(format!("target {}, input {name}", target.name)));
    call();
    say(None);
}

fn keep(target: &Target, bytes: &[u8]) -> PathBuf {
    let folder = folder("artifacts", target);
    let name = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let path = folder.join(format!("crash-{name:016x}"));
    // If it cannot be kept, its number is still known.
    let _ = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, bytes));
    path
}

/// The input of a number: all by chance, or one of the corpus with some bytes changed, put in, or left out.
fn by_chance(number: u64, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    random.next();
    let mut bytes = match usize::try_from(random.below(4)) {
        Ok(0) if !corpus.is_empty() => {
            let first = usize::try_from(random.below(corpus.len() as u64)).unwrap_or(0);
            corpus[first].1.clone()
        }
        _ => {
            let most = random.below(MOST_BYTES) + 1;
            (0..random.below(most)).map(|_| random.byte()).collect()
        }
    };
    for _ in 0..random.below(6) {
        let at = usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap_or(0);
        match random.below(3) {
            0 if at < bytes.len() => bytes[at] = random.byte(),
            1 if at < bytes.len() => _ = bytes.remove(at),
            _ => bytes.insert(at, random.byte()),
        }
    }
    bytes
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, count: u64) -> u64 {
        (self.next() >> 20) % count.max(1)
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 24).to_le_bytes()[0]
    }
}
