//! Certificates from an ACME server (RFC 8555): each name has an order of its own, so that one that cannot be had hinders no other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewAccount, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::certificates::{Kept, Offer};
use super::fetch::Fetch;
use super::routes::check_name;
use super::shared::Shared;
use super::validity::Validity;

/// For an order from its beginning to its certificate.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often names and times are looked at, if nobody says that they have changed.
const LOOK: Duration = Duration::from_secs(60);
/// The longest wait between two orders of a name.
const MOST_WAIT: Duration = Duration::from_secs(6 * 3600);
/// Orders at once.
const MOST_ORDERS: usize = 4;
const POLL: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(90));

type Failable<T> = Result<T, String>;

/// The ACME server, and how it is asked.
#[derive(Clone, Debug)]
pub struct Authority {
    /// The address of its directory, such as `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory: String,
    /// Where it may write to, such as `mailto:admin@example.com`.
    pub contact: Option<String>,
    /// A file in PEM with certificates that are trusted beside those of the host, to reach it.
    pub roots: Option<PathBuf>,
    /// How long a name waits after its first order that failed; each one after that doubles the wait, up to six hours.
    pub wait: Duration,
}

/// What is known of the certificate of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateStatus {
    /// The name.
    pub name: String,
    /// When the present one ends, in seconds since 1970, if there is one.
    pub ends: Option<u64>,
    /// Why the last order failed, if it did.
    pub trouble: Option<String>,
}

/// What became of the orders of a name.
#[derive(Clone, Debug, Default)]
struct Tried {
    failures: u32,
    next: Option<Instant>,
    trouble: Option<String>,
    runs: bool,
}

impl Tried {
    /// After one more order, which failed or not. Each one waits after the last: a name is never ordered again at once.
    fn after(&self, trouble: Option<&String>, wait: Duration) -> Self {
        let Some(why) = trouble else {
            return Self { next: Instant::now().checked_add(wait), ..Self::default() };
        };
        let times = 1_u32.checked_shl(self.failures.min(20)).unwrap_or(u32::MAX);
        let next = Instant::now().checked_add(wait.saturating_mul(times).min(MOST_WAIT));
        Self { failures: self.failures.saturating_add(1), next, trouble: Some(why.clone()), runs: false }
    }
}

/// Refuses to believe a clock by which a certificate is due again that has just been ordered. It is shown all the same.
fn check_new(validity: Validity, now: SystemTime) -> Failable<()> {
    if validity.renewal() > now {
        return Ok(());
    }
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Err(format!(
        "its new certificate, which ends {} s after the beginning of 1970, is old already at {} s: the clock of this host is wrong",
        seconds(validity.until),
        seconds(now)
    ))
}

/// Orders certificates, for as long as the edge is there.
pub struct Orders {
    authority: Authority,
    tried: Mutex<BTreeMap<String, Tried>>,
    account: AsyncMutex<Option<Account>>,
    changed: Notify,
}

impl Orders {
    /// Nothing was ordered yet.
    pub fn new(authority: Authority) -> Self {
        Self { authority, tried: Mutex::default(), account: AsyncMutex::default(), changed: Notify::new() }
    }

    /// Has names looked at now.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// Why the last order of a name failed.
    pub fn trouble(&self, name: &str) -> Option<String> {
        self.tried().get(name)?.trouble.clone()
    }

    /// Orders what is due, until it is dropped.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let (room, mut running) = (Arc::new(Semaphore::new(MOST_ORDERS)), JoinSet::new());
        loop {
            for name in self.due(&shared) {
                let (orders, shared, room) = (Arc::clone(&self), Arc::clone(&shared), Arc::clone(&room));
                running.spawn(async move {
                    let _permit = room.acquire().await;
                    orders.renew(&shared, &name).await;
                });
            }
            while running.try_join_next().is_some() {}
            let wait = self.wait(&shared);
            tokio::select! {
                () = sleep(wait.max(Duration::from_millis(100))) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Names whose certificates are to be ordered now, which are noted as being so.
    fn due(&self, shared: &Shared) -> Vec<String> {
        let names = shared.routes.names();
        shared.certificates.keep(&names);
        let mut tried = self.tried();
        tried.retain(|name, one| one.runs || names.contains(name));
        let (now, clock) = (Instant::now(), SystemTime::now());
        let is_due = |name: &String, tried: &Tried| {
            let is_old = shared.certificates.validity(name).is_none_or(|validity| validity.renewal() <= clock);
            is_old && !tried.runs && tried.next.is_none_or(|next| next <= now)
        };
        let mut due = Vec::new();
        for name in names {
            let one = tried.entry(name.clone()).or_default();
            if let Err(why) = check_name(&name) {
                one.trouble = Some(why);
            } else if is_due(&name, one) {
                one.runs = true;
                due.push(name);
            }
        }
        due
    }

    /// How long there is nothing to do: until a name that failed is tried again, or a certificate is old.
    fn wait(&self, shared: &Shared) -> Duration {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let again = self
            .tried()
            .values()
            .filter(|tried| !tried.runs)
            .filter_map(|tried| tried.next)
            .filter(|next| *next > now)
            .min();
        let again = again.map(|next| next.saturating_duration_since(now));
        let old = shared.certificates.next_renewal(clock).and_then(|renewal| renewal.duration_since(clock).ok());
        again.into_iter().chain(old).chain([LOOK]).min().unwrap_or(LOOK)
    }

    async fn renew(&self, shared: &Shared, name: &str) {
        let failures = self.tried().get(name).map_or(0, |tried| tried.failures);
        // The next order is proved in the other way.
        let kind = if failures.is_multiple_of(2) { ChallengeType::TlsAlpn01 } else { ChallengeType::Http01 };
        let ordered = timeout(PATIENCE, self.order(shared, name, &kind)).await;
        let ordered = ordered.unwrap_or_else(|_| Err(format!("no certificate within {} s", PATIENCE.as_secs())));
        let result = ordered.and_then(|kept| {
            shared.certificates.add(name, &kept)?;
            // What cannot be kept is shown all the same, and ordered again by the next process.
            shared.store.keep_certificate(name, &kept).unwrap_or_else(|why| (shared.say)(format!("{name}: {why}")));
            shared.certificates.validity(name).map_or(Ok(()), |validity| check_new(validity, SystemTime::now()))
        });
        let mut tried = self.tried();
        let one = tried.entry(name.to_owned()).or_default();
        *one = one.after(result.as_ref().err(), self.authority.wait);
        drop(tried);
        match result {
            Ok(()) => (shared.say)(format!("{name} has a certificate")),
            Err(why) => (shared.say)(format!("{name} gets no certificate: {why}")),
        }
        self.look();
    }

    async fn order(&self, shared: &Shared, name: &str, kind: &ChallengeType) -> Failable<Kept> {
        let account = self.account(shared).await?;
        let names = [Identifier::Dns(name.to_owned())];
        let mut order = account.new_order(&NewOrder::new(&names)).await.map_err(said)?;
        // Answers are given until the server has looked.
        let offers = prove(shared, name, &mut order, kind).await?;
        let status = order.poll_ready(&POLL).await.map_err(said)?;
        if status != OrderStatus::Ready {
            return Err(format!(
                "{}: the order is {status:?}{}",
                challenge_name(kind),
                refusal(&mut order, kind).await
            ));
        }
        drop(offers);
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(said)?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate().map_err(said)?;
        let request = params.serialize_request(&key).map_err(said)?;
        order.finalize_csr(request.der()).await.map_err(said)?;
        let chain = order.poll_certificate(&POLL).await.map_err(said)?;
        Ok(Kept { chain, key: key.serialize_pem() })
    }

    /// The account, which is made at the first time and kept.
    async fn account(&self, shared: &Shared) -> Failable<Account> {
        let mut held = self.account.lock().await;
        if let Some(account) = held.as_ref() {
            return Ok(account.clone());
        }
        let fetch = || Fetch::new(self.authority.roots.as_deref()).map_err(said);
        let kept = shared.store.account().map_err(said)?;
        let kept = kept.and_then(|json| serde_json::from_slice::<(String, AccountCredentials)>(&json).ok());
        let account = match kept {
            Some((directory, credentials)) if directory == self.authority.directory => {
                Account::builder_with_http(Box::new(fetch()?)).from_credentials(credentials).await.map_err(said)?
            }
            _ => {
                let contact: Vec<&str> = self.authority.contact.as_deref().into_iter().collect();
                let wanted =
                    NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
                let builder = Account::builder_with_http(Box::new(fetch()?));
                let directory = self.authority.directory.clone();
                let (account, credentials) = builder.create(&wanted, directory.clone(), None).await.map_err(said)?;
                let json = serde_json::to_vec(&(directory, credentials)).map_err(said)?;
                shared.store.keep_account(&json).map_err(said)?;
                account
            }
        };
        *held = Some(account.clone());
        Ok(account)
    }

    fn tried(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Tried>> {
        self.tried.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// Answers what the server wants to see before it believes that the name is ours.
async fn prove<'a>(
    shared: &'a Shared,
    name: &str,
    order: &mut Order,
    kind: &ChallengeType,
) -> Failable<Vec<Offer<'a>>> {
    let mut offers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(said)?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(format!("the authorization is {other:?}")),
        }
        let missing = || format!("the server does not offer {}", challenge_name(kind));
        let mut challenge = authorization.challenge(kind.clone()).ok_or_else(missing)?;
        offers.push(offer(shared, name, &challenge, kind)?);
        challenge.set_ready().await.map_err(said)?;
    }
    Ok(offers)
}

fn offer<'a>(
    shared: &'a Shared,
    name: &str,
    challenge: &ChallengeHandle<'_>,
    kind: &ChallengeType,
) -> Failable<Offer<'a>> {
    let authorization = challenge.key_authorization();
    match kind {
        ChallengeType::TlsAlpn01 => shared.certificates.offer_certificate(name, authorization.digest().as_ref()),
        _ => Ok(shared.certificates.offer_token(&challenge.token, authorization.as_str())),
    }
}

/// Why the server does not believe it.
async fn refusal(order: &mut Order, kind: &ChallengeType) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let problem =
            state.challenges.iter().find(|challenge| challenge.r#type == *kind).and_then(|one| one.error.as_ref());
        if let Some(problem) = problem {
            return format!(": {problem}");
        }
    }
    String::new()
}

fn challenge_name(kind: &ChallengeType) -> &'static str {
    if *kind == ChallengeType::TlsAlpn01 { "TLS-ALPN-01" } else { "HTTP-01" }
}

fn said(why: impl std::fmt::Display) -> String {
    why.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_certificate_that_is_old_by_this_clock_is_a_failure_and_waits_as_one() {
        let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap();
        let validity = Validity { from: at(1000), until: at(1300) };
        check_new(validity, at(1199)).unwrap();
        let why = check_new(validity, at(1200)).unwrap_err();
        assert!(why.contains("ends 1300 s") && why.contains("at 1200 s"), "{why}");
        let wait = Duration::from_secs(60);
        let left = |tried: &Tried| tried.next.unwrap().duration_since(Instant::now());
        let mut tried = Tried { runs: true, ..Tried::default() };
        for (failures, most) in [(1, 60), (2, 120), (3, 240)] {
            tried = tried.after(Some(&why), wait);
            assert!(!tried.runs && tried.failures == failures && tried.trouble.is_some());
            assert!((most - 30..=most).contains(&left(&tried).as_secs().saturating_add(1)), "{:?}", left(&tried));
        }
        for _ in 0..40 {
            tried = tried.after(Some(&why), wait);
        }
        assert!(left(&tried) <= MOST_WAIT);
        tried = tried.after(None, wait);
        assert!(tried.failures == 0 && tried.trouble.is_none() && left(&tried) > Duration::from_secs(30));
    }
}
