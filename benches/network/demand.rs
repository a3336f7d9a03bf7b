//! How long the first packet to a service takes that has nobody yet: it is held, a machine is forked that takes it, and the answer comes back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vmcell::network::{MachineAddress, Network, NetworkConfig, Rule, Service, ServiceConfig, Uplink};
use vmcell::{Result, Snapshot, Vm};

use super::guest::Guest;
use super::median::median;
use super::packet::{SUBNET, datagram_to};
use super::{ROUNDS, failed};

const LEN: usize = 100;
const ETHERNET: usize = 14;
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run() -> Result<()> {
    let machine = SUBNET.machine(1, 1)?;
    let snapshot = {
        let network = Network::new(NetworkConfig::new(SUBNET))?;
        let nic = network.port(machine)?.into_nic();
        Guest::start(nic, &format!("bench=echo size={}", LEN + ETHERNET))?.vm.snapshot()?
    };
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        let mut site = Site::new(machine, &snapshot)?;
        let first = site.answer()?;
        let next = site.answer()?;
        if round > 0 {
            times.push((first, next));
        }
    }
    let median_of = |pick: fn(&(f64, f64)) -> f64| median(times.iter().map(pick).collect());
    println!(
        "a packet to a service that has nobody yet is answered after {:.2} ms, the next one after {:.2} ms (median of {ROUNDS})",
        median_of(|times| times.0),
        median_of(|times| times.1)
    );
    Ok(())
}

/// A network whose only service forks its machine on demand.
struct Site {
    client: Uplink,
    service: Service,
    // Behind the service, which starts it.
    _machine: Arc<Mutex<Option<Vm>>>,
}

impl Site {
    fn new(machine: MachineAddress, snapshot: &Snapshot) -> Result<Self> {
        let network = Network::new(NetworkConfig::new(SUBNET))?;
        network.set_rules(&[Rule::allow()])?;
        let mut client = network.uplink(1420, 16, || ())?;
        client.set_routes(&[SUBNET.host_prefix(2)])?;
        let kept = Arc::new(Mutex::new(None));
        let (keeps, snapshot, starts) = (Arc::clone(&kept), snapshot.clone(), network.clone());
        let config = ServiceConfig::new().on_demand(move |demand| {
            let nic = starts.port(machine)?.into_nic();
            let vm = Vm::builder().fork_of(&snapshot).nic(nic).build()?;
            vm.start()?;
            *keeps.lock().unwrap_or_else(PoisonError::into_inner) = Some(vm);
            demand.service().add(machine)
        });
        let service = network.service(SUBNET.service(1), config)?;
        Ok(Self { client, service, _machine: kept })
    }

    /// Milliseconds until a packet is answered.
    fn answer(&mut self) -> Result<f64> {
        let (begun, mut came) = (Instant::now(), 0);
        self.client.inject(&datagram_to(SUBNET.machine(2, 1)?.ip(), self.service.address(), LEN));
        self.client.flush();
        while came == 0 {
            came = self.client.drain(16, |_| true);
            if begun.elapsed() > PATIENCE {
                return Err(failed(format!("a service does not answer: {:?}", self.service.metrics())));
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}
