//! Registered accounts: passwords, and limits on password attempts. This module knows neither cookies
//! nor forms.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;

use super::{Chat, RECONNECT, log_failure};
use crate::hub::Outbox;
use crate::model::{
    BadPassword, BrowserToken, DisplayName, Password, PasswordHash, ResumeToken, SessionToken,
    User, UserId,
};
use crate::protocol::Feed;
use crate::relay::News;
use crate::store::{NewSession, Session, SignedIn, StoreError};

/// How many attempts one address may make at once, and how long it waits for each further one.
const OF_ADDRESS: (u32, Duration) = (10, Duration::from_secs(20));
/// The same for a name. It recovers faster than an address, so that a stranger cannot block somebody
/// else's name for good.
const OF_NAME: (u32, Duration) = (10, Duration::from_secs(10));
/// For how many addresses, and for how many names, attempts are remembered.
const REMEMBERED: usize = 10_000;
/// How many passwords may wait to be hashed. Each takes 19 MiB and tens of milliseconds.
const WAITING: usize = 64;
/// Longer than any name, in characters.
const NAME_CHARACTERS: usize = 64;

/// A dummy hash. A password for a name without an account is compared with it, so that the answer takes
/// the same time.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGtlZXBzIGl0IQ$\
    AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// The sender of a form.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// Their address; for IPv6, the network that their household shares. Attempts are counted for it.
    pub address: IpAddr,
    /// Their whole address, for the log line about a refused sign-in and nothing else.
    pub whole_address: IpAddr,
    /// Their session, if they have signed in.
    pub session: Option<SessionToken>,
    /// Their browser, if it has sent its cookie.
    pub browser: Option<BrowserToken>,
}

/// Why a form was refused.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The new password is not acceptable.
    #[error(transparent)]
    Password(#[from] BadPassword),
    /// The name or the password is wrong.
    #[error("The name or the password is wrong.")]
    Wrong,
    /// The token or the session has expired.
    #[error("Your session on that page has expired. Go back to the chat and try again.")]
    SomebodyElse,
    /// Too many attempts; another is allowed after this time.
    #[error("Too many attempts. Please try again in {} seconds.", .0.as_secs() + 1)]
    TooOften(Duration),
    /// Too many passwords wait to be hashed.
    #[error("The server is busy. Please try again in a moment.")]
    Busy,
    /// The store failed.
    #[error("Something went wrong on the server. Please try again.")]
    Trouble(#[from] StoreError),
}

type Result<T> = std::result::Result<T, Denied>;

/// Recent attempts, and the queue for hashing.
pub(super) struct Accounts {
    attempts: Mutex<Attempts>,
    waiting: Arc<Semaphore>,
    hashing: Arc<Semaphore>,
}

struct Attempts {
    by_address: Allowance<IpAddr>,
    by_name: Allowance<String>,
}

/// A burst of attempts, and one more after each `every`.
struct Allowance<K> {
    burst: u32,
    every: Duration,
    /// When the whole burst is available again.
    full_at: HashMap<K, Instant>,
}

impl<K: Eq + Hash + Clone> Allowance<K> {
    fn new((burst, every): (u32, Duration)) -> Self {
        Self {
            burst,
            every,
            full_at: HashMap::new(),
        }
    }

    /// How long until the next attempt is allowed.
    fn wait(&self, key: &K, now: Instant) -> Duration {
        let full_at = self.full_at.get(key).copied().unwrap_or(now).max(now);
        (full_at + self.every).saturating_duration_since(now + self.every * self.burst)
    }

    fn take(&mut self, key: &K, now: Instant) {
        if self.full_at.len() >= REMEMBERED && !self.full_at.contains_key(key) {
            self.full_at.retain(|_, full_at| now < *full_at);
            // The key with the fewest attempts loses least when it is forgotten.
            let least = self.full_at.iter().min_by_key(|(_, full_at)| **full_at);
            if self.full_at.len() >= REMEMBERED
                && let Some(least) = least.map(|(key, _)| key.clone())
            {
                self.full_at.remove(&least);
            }
        }
        let full_at = self.full_at.entry(key.clone()).or_insert(now);
        *full_at = (*full_at).max(now) + self.every;
    }

    fn give_back(&mut self, key: &K) {
        if let Some(full_at) = self.full_at.get_mut(key) {
            *full_at -= self.every;
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        // Half of the processors stay free for the chat.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            attempts: Mutex::new(Attempts {
                by_address: Allowance::new(OF_ADDRESS),
                by_name: Allowance::new(OF_NAME),
            }),
            waiting: Arc::new(Semaphore::new(WAITING)),
            hashing: Arc::new(Semaphore::new((processors / 2).clamp(1, 4))),
        }
    }
}

impl Accounts {
    /// Counts an attempt from this address for this name, unless there were too many.
    fn allow(&self, address: IpAddr, name: Option<&String>) -> Result<()> {
        let (mut attempts, now) = (self.attempts.lock(), Instant::now());
        let of_name = name.map_or(Duration::ZERO, |name| attempts.by_name.wait(name, now));
        let wait = attempts.by_address.wait(&address, now).max(of_name);
        if !wait.is_zero() {
            return Err(Denied::TooOften(wait));
        }
        attempts.by_address.take(&address, now);
        if let Some(name) = name {
            attempts.by_name.take(name, now);
        }
        Ok(())
    }

    /// The password was right: the attempt does not count.
    fn give_back(&self, address: IpAddr, name: &String) {
        let mut attempts = self.attempts.lock();
        attempts.by_address.give_back(&address);
        attempts.by_name.give_back(name);
    }

    /// Runs expensive work, together with only a few others.
    async fn hashed<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let waiting = Arc::clone(&self.waiting).try_acquire_owned();
        let waiting = waiting.map_err(|_| Denied::Busy)?;
        let turn = Arc::clone(&self.hashing).acquire_owned().await;
        let turn = turn.map_err(|_| Denied::Busy)?;
        let working = tokio::task::spawn_blocking(move || {
            let _places = (waiting, turn);
            work()
        });
        working.await.map_err(|_| Denied::Busy)
    }

    async fn hash(&self, password: Password) -> Result<PasswordHash> {
        self.hashed(move || hash(&password)).await
    }

    async fn is(&self, hash: PasswordHash, typed: &str) -> Result<bool> {
        let typed: String = typed.nfc().collect();
        self.hashed(move || is(&hash, &typed)).await
    }
}

/// Argon2id with the crate's parameters, which are those of OWASP's Password Storage Cheat Sheet: 19
/// MiB, two passes, one lane.
fn hash(password: &Password) -> PasswordHash {
    let hash = Argon2::default().hash_password(password.as_bytes());
    // Hashing fails only for invalid parameters, or without the system's random source.
    PasswordHash(hash.expect("passwords can be hashed").to_string())
}

fn is(hash: &PasswordHash, typed: &str) -> bool {
    phc::PasswordHash::new(&hash.0).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(typed.as_bytes(), &hash)
            .is_ok()
    })
}

/// Logs a refused sign-in with the sender's address, so that programs such as fail2ban can block it. No
/// other line contains an address. The target does not depend on this file's name, and nothing that
/// people choose is in the line, since filters match both.
fn log_refused_sign_in(by: &Visitor) {
    let address = by.whole_address.to_canonical();
    tracing::warn!(target: "overwire::sign_in", "refused a sign-in from {address}");
}

/// A name as the store compares it, the same for all spellings.
fn key_of(name: &str) -> String {
    let words: Vec<_> = name.split_whitespace().collect();
    let key = DisplayName::key_of(&words.join(" "));
    key.chars().take(NAME_CHARACTERS).collect()
}

impl Chat {
    /// Registers the guest of that tab and signs them in.
    pub async fn keep(
        &self,
        tab: &ResumeToken,
        password: &str,
        by: &Visitor,
    ) -> Result<SessionToken> {
        let password = Password::new(password)?;
        let client = self.store.client_by_token(tab.hash(), None).await?;
        client.ok_or(Denied::SomebodyElse)?;
        self.accounts.allow(by.address, None)?;
        let hash = self.accounts.hash(password).await?;
        let (token, session) = new_session(by);
        let begun = self.store.register(tab.hash(), hash, session).await?;
        let begun = begun.ok_or(Denied::SomebodyElse)?;
        let user = &begun.session.user;
        let tabs = self.hub.of_user(user.id);
        tabs.iter().for_each(|tab| tab.keep());
        tracing::info!(user.id = user.id.0, "registered");
        self.end_clients(user.id).await;
        self.begun(&begun).await;
        Ok(token)
    }

    /// Signs in to the account with that name.
    pub async fn sign_in(&self, name: &str, password: &str, by: &Visitor) -> Result<SessionToken> {
        let name = key_of(name);
        let refused = self.accounts.allow(by.address, Some(&name));
        refused.inspect_err(|_| log_refused_sign_in(by))?;
        let (user, hash) = match self.store.account(&name).await? {
            Some((user, hash)) => (Some(user), hash),
            None => (None, PasswordHash(DUMMY_HASH.to_owned())),
        };
        let is_right = self.accounts.is(hash.clone(), password).await?;
        let Some(user) = user.filter(|_| is_right) else {
            log_refused_sign_in(by);
            return Err(Denied::Wrong);
        };
        let (token, session) = new_session(by);
        let begun = self.store.sign_in(user.id, hash, session).await?;
        let begun = begun.ok_or_else(|| {
            log_refused_sign_in(by);
            Denied::Wrong
        })?;
        self.accounts.give_back(by.address, &name);
        tracing::info!(user.id = user.id.0, "signed in");
        self.begun(&begun).await;
        Ok(token)
    }

    /// Signs out: ends the session and closes its sockets.
    pub async fn sign_out(&self, session: &SessionToken) -> Result<()> {
        if let Some(ended) = self.store.sign_out(session.hash()).await? {
            tracing::info!(user.id = ended.user.id.0, "signed out");
            self.end_clients(ended.user.id).await;
        }
        Ok(())
    }

    /// Changes the password of a signed-in person and ends their other sessions.
    pub async fn change_password(&self, was: &str, password: &str, by: &Visitor) -> Result<()> {
        let password = Password::new(password)?;
        let token = by.session.as_ref().ok_or(Denied::SomebodyElse)?.hash();
        let session = self.store.session(token).await?;
        let Session { user, .. } = session.ok_or(Denied::SomebodyElse)?;
        self.accounts.allow(by.address, Some(&user.name))?;
        let account = self.store.account(&user.name).await?;
        let (_, former) = account.ok_or(Denied::SomebodyElse)?;
        if !self.accounts.is(former.clone(), was).await? {
            tracing::info!(user.id = user.id.0, "password change failed");
            return Err(Denied::Wrong);
        }
        let hash = self.accounts.hash(password).await?;
        let changed = self.store.change_password(token, former, hash).await?;
        changed.ok_or(Denied::SomebodyElse)?;
        self.accounts.give_back(by.address, &user.name);
        tracing::info!(user.id = user.id.0, "changed the password");
        self.end_clients(user.id).await;
        Ok(())
    }

    /// The person who chooses a new password with that link, which nobody can guess.
    pub async fn password_link(&self, link: &ResumeToken) -> Result<Option<User>> {
        Ok(self.store.password_link(link.hash()).await?)
    }

    /// Sets the password of the person of that link, ends their sessions and signs them in.
    pub async fn reset_password(
        &self,
        link: &ResumeToken,
        password: &str,
        by: &Visitor,
    ) -> Result<SessionToken> {
        let password = Password::new(password)?;
        let user = self.password_link(link).await?;
        let user = user.ok_or(Denied::SomebodyElse)?;
        self.accounts.allow(by.address, None)?;
        let hash = self.accounts.hash(password).await?;
        let ((token, session), id) = (new_session(by), user.id);
        let reset = self.store.reset_password(link.hash(), user, hash, session);
        let begun = reset.await?.ok_or(Denied::SomebodyElse)?;
        tracing::info!(user.id = id.0, "reset the password");
        self.end_clients(id).await;
        self.begun(&begun).await;
        Ok(token)
    }

    /// The user of that session, if they are a moderator.
    pub async fn moderator(&self, session: Option<&SessionToken>) -> Result<Option<User>> {
        let Some(session) = self.signed_in(session).await? else {
            return Ok(None);
        };
        let standing = self.store.standing(session.id).await?;
        Ok(standing.moderator.then_some(session))
    }

    /// The user of that session.
    pub async fn signed_in(&self, session: Option<&SessionToken>) -> Result<Option<User>> {
        let Some(session) = session else {
            return Ok(None);
        };
        let session = self.store.session(session.hash()).await?;
        Ok(session.map(|session| session.user))
    }

    /// Whether that is a valid moderator link, which nobody can guess.
    pub async fn is_admin_link(&self, link: &ResumeToken) -> Result<bool> {
        Ok(self.store.is_admin_link(link.hash()).await?)
    }

    /// Makes the signed-in person a moderator.
    pub async fn become_moderator(&self, link: &ResumeToken, by: &Visitor) -> Result<()> {
        let user = self.signed_in(by.session.as_ref()).await?;
        let user = user.ok_or(Denied::SomebodyElse)?;
        if !self.store.become_moderator(link.hash(), user.id).await? {
            return Err(Denied::SomebodyElse);
        }
        tracing::info!(user.id = user.id.0, "became a moderator");
        // They can now enter the groups for moderators.
        let tabs = self.hub.of_user(user.id);
        tabs.iter().for_each(|tab| tab.outdate_groups());
        Ok(())
    }

    /// Registers a new user with that password, and makes them a moderator.
    pub async fn arrive_as_moderator(
        &self,
        link: &ResumeToken,
        password: &str,
        by: &Visitor,
    ) -> Result<SessionToken> {
        let password = Password::new(password)?;
        self.accounts.allow(by.address, None)?;
        let hash = self.accounts.hash(password).await?;
        loop {
            let spare = self.spares.lock().next();
            let spare = spare.ok_or(Denied::Busy)?;
            let (token, session) = new_session(by);
            let (link, hash) = (link.hash(), hash.clone());
            let arriving = self.store.arrive_as_moderator(link, spare, hash, session);
            if let Some(begun) = arriving.await? {
                tracing::info!(user.id = begun.session.user.id.0, "became a moderator");
                return Ok(token);
            }
            if !self.store.is_admin_link(link).await? {
                return Err(Denied::SomebodyElse);
            }
        }
    }

    async fn begun(&self, begun: &SignedIn) {
        if let Some(former) = &begun.former {
            self.end_clients(former.user.id).await;
        }
    }

    /// Some of this person's clients have ended. Closes their sockets, on every node.
    async fn end_clients(&self, user: UserId) {
        self.tell_others(News::Ended(user));
        if let Err(failure) = self.close_stale(self.hub.of_user(user)).await {
            log_failure("close stale sockets, which will be tried again", &failure);
        }
    }

    /// Closes those of these sockets whose client has ended, or whose group is closed to them.
    pub(super) async fn close_stale(&self, tabs: Vec<Arc<Outbox>>) -> super::Result<()> {
        // If a client was taken over on this node, its former socket is closed already. A client that
        // is still connecting is skipped: the store may have it in its previous room. In a moment it
        // enters a room, or is refused.
        let is_in = |tab: &Arc<Outbox>| {
            let newest = self.hub.of_client(tab.client.client);
            let has_entered = tab.place().is_some() || tab.dialect.feed() == Feed::Nothing;
            has_entered && newest.is_some_and(|newest| newest.client == tab.client)
        };
        let tabs: Vec<_> = tabs.into_iter().filter(is_in).collect();
        if tabs.is_empty() {
            return Ok(());
        }
        let clients = tabs.iter().map(|tab| tab.client).collect();
        let stale = self.store.stale_clients(clients).await?;
        let stale: HashSet<_> = stale.into_iter().collect();
        let stale = tabs
            .into_iter()
            .filter(|tab| stale.contains(&tab.client.client));
        self.send_away(&Vec::from_iter(stale)).await
    }

    /// Closes these sockets: as banned if the person is banned, otherwise so that the tab reconnects.
    pub(super) async fn send_away(&self, tabs: &[Arc<Outbox>]) -> super::Result<()> {
        if tabs.is_empty() {
            return Ok(());
        }
        let users = tabs.iter().map(|tab| tab.user).collect();
        let banned: HashSet<_> = self.store.banned(users).await?.into_iter().collect();
        for tab in tabs {
            match banned.contains(&tab.user) {
                true => self.close_banned(tab),
                false => tab.close(RECONNECT),
            }
        }
        Ok(())
    }
}

fn new_session(by: &Visitor) -> (SessionToken, NewSession) {
    let token = SessionToken::random();
    let session = NewSession {
        token: token.hash(),
        former: by.session.as_ref().map(SessionToken::hash),
    };
    (token, session)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_password_is_known_by_its_hash_alone() {
        let hash = hash(&Password::new("Ko\u{308}niginnen").unwrap());
        assert!(is(&hash, "K\u{f6}niginnen") && !is(&hash, "Koniginnen"));
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        // The dummy hash takes the same work and matches nothing.
        assert!(DUMMY_HASH.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(phc::PasswordHash::new(DUMMY_HASH).is_ok());
        assert_eq!(hash.0.len(), DUMMY_HASH.len());
        assert!(!is(&PasswordHash(DUMMY_HASH.to_owned()), ""));
    }

    #[test]
    fn attempts_are_used_up_and_recover_one_by_one() {
        let (mut attempts, now) = (Allowance::new((3, 10 * SECOND)), Instant::now());
        for _ in 0..3 {
            assert_eq!(attempts.wait(&'a', now), Duration::ZERO);
            attempts.take(&'a', now);
        }
        assert_eq!(attempts.wait(&'a', now), 10 * SECOND);
        assert_eq!(attempts.wait(&'b', now), Duration::ZERO);
        assert_eq!(attempts.wait(&'a', now + 4 * SECOND), 6 * SECOND);
        let later = now + 10 * SECOND;
        assert_eq!(attempts.wait(&'a', later), Duration::ZERO);
        attempts.take(&'a', later);
        assert_eq!(attempts.wait(&'a', later), 10 * SECOND);
        attempts.give_back(&'a');
        assert_eq!(attempts.wait(&'a', later), Duration::ZERO);
    }

    #[test]
    fn the_names_with_most_attempts_are_remembered() {
        let (mut attempts, now) = (Allowance::new((3, 10 * SECOND)), Instant::now());
        for _ in 0..3 {
            attempts.take(&0, now);
        }
        for name in 1..REMEMBERED + 100 {
            attempts.take(&name, now);
        }
        assert_eq!(attempts.full_at.len(), REMEMBERED);
        assert_eq!(attempts.wait(&0, now), 10 * SECOND);
        // Entries that have recovered make room.
        attempts.take(&usize::MAX, now + 60 * SECOND);
        assert_eq!(attempts.full_at.len(), 1);
    }

    #[test]
    fn one_address_cannot_use_up_a_name_for_good() {
        assert!(OF_NAME.1 < OF_ADDRESS.1);
    }

    #[test]
    fn all_spellings_of_a_name_count_as_one() {
        assert_eq!(key_of("  ANNA \u{a0} Lee "), "anna lee");
        assert_eq!(key_of(&"x".repeat(5000)).len(), NAME_CHARACTERS);
    }
}
