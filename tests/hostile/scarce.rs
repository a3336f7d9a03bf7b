//! A process that gets less CPU time than its threads want: by a quota of a control group if the host has such and lets us, otherwise
//! by keeping all of its threads on one processor beside one that is always busy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The time of one processor, in pieces so short that nobody waits long for the next one.
const PERIOD_US: u32 = 10_000;
const QUOTA_US: u32 = 10_000;

static NOW: AtomicBool = AtomicBool::new(false);

/// While it lives, CPU time is scarce for the threads that the calling thread makes.
pub struct Scarce(How);

enum How {
    Quota { group: PathBuf, home: PathBuf },
    Shared { before: CpuSet, over: Arc<AtomicBool>, busy: Option<JoinHandle<()>> },
}

impl Scarce {
    pub fn begin() -> Self {
        NOW.store(true, Ordering::Release);
        let how = quota().unwrap_or_else(|why| {
            println!("  no quota of CPU time ({why}): all threads share one processor with a busy one");
            shared()
        });
        Self(how)
    }

    pub fn is_now() -> bool {
        NOW.load(Ordering::Acquire)
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        match &mut self.0 {
            How::Quota { group, home } => {
                let moved = fs::write(home.join("cgroup.procs"), std::process::id().to_string());
                // A test that has failed is told of already, so this is no reason to panic on top of that.
                if let Err(error) = moved.and_then(|()| fs::remove_dir(&*group)) {
                    println!("  {} is left over: {error}", group.display());
                }
            }
            How::Shared { before, over, busy } => {
                over.store(true, Ordering::Release);
                let _ = busy.take().map(JoinHandle::join);
                let _ = sched_setaffinity(None, before);
            }
        }
        NOW.store(false, Ordering::Release);
    }
}

/// This process's control group for CPU time: a hierarchy of its own, or the unified one.
fn home() -> io::Result<(PathBuf, bool)> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let at = |mount: &str| Path::new(mount).join(path.trim_start_matches('/'));
        if controllers.split(',').any(|name| name == "cpu") {
            let mount =
                ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"].into_iter().find(|path| Path::new(path).exists());
            return Ok((at(mount.ok_or(io::ErrorKind::NotFound)?), false));
        }
        if controllers.is_empty() && at("/sys/fs/cgroup").join("cgroup.controllers").exists() {
            return Ok((at("/sys/fs/cgroup"), true));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn quota() -> io::Result<How> {
    let (home, unified) = home()?;
    let group = home.join(format!("vmcell-test-{}", std::process::id()));
    if unified {
        fs::write(home.join("cgroup.subtree_control"), "+cpu")?;
    }
    fs::create_dir(&group)?;
    let limit = || {
        if unified {
            fs::write(group.join("cpu.max"), format!("{QUOTA_US} {PERIOD_US}"))?;
        } else {
            fs::write(group.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
            fs::write(group.join("cpu.cfs_quota_us"), QUOTA_US.to_string())?;
        }
        fs::write(group.join("cgroup.procs"), std::process::id().to_string())
    };
    if let Err(error) = limit() {
        let _ = fs::remove_dir(&group);
        return Err(error);
    }
    Ok(How::Quota { group, home })
}

fn shared() -> How {
    let before = sched_getaffinity(None).expect("the host tells it");
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).expect("this thread may run somewhere"));
    sched_setaffinity(None, &one).expect("a thread may keep to one of its processors");
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    let spin = move || {
        while !told.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
    };
    // By its name it is one of the harness's own.
    let busy = std::thread::Builder::new().name("hostile::busy".into()).spawn(spin).ok();
    How::Shared { before, over, busy }
}
