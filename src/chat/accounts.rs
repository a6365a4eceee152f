//! Names that are kept: by whom, and how often anybody may guess a password. It knows neither
//! cookies nor forms.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization as _;

use super::{COME_AGAIN, Chat};
use crate::hub::Outbox;
use crate::model::{
    BadPassword, ClientRef, GroupName, Password, PasswordHash, ResumeToken, SessionToken, User,
    UserId,
};
use crate::protocol::Feed;
use crate::relay::News;
use crate::store::{NewSession, Session, SignedIn, StoreError};

/// What one address may try at once, and how long after that each further try takes.
const OF_ADDRESS: (u32, Duration) = (10, Duration::from_secs(20));
/// The same for a name. It comes back faster than that of an address, so that no stranger can use
/// up all the tries of somebody else's name for good.
const OF_NAME: (u32, Duration) = (10, Duration::from_secs(10));
/// Of how many addresses and names each it is remembered how often they were tried.
const REMEMBERED: usize = 10_000;
/// How many passwords may wait to be hashed. Each takes 19 MiB and tens of milliseconds in its turn.
const WAITING: usize = 64;
/// Longer than any name, in characters.
const NAME_CHARACTERS: usize = 64;

/// The password of nobody: what is typed for a name that nobody keeps is compared with it, which
/// takes as long as with anybody's.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGtlZXBzIGl0IQ$\
    AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// Who asks.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// From where.
    pub address: IpAddr,
    /// By which they have signed in already.
    pub session: Option<SessionToken>,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// It cannot be a password.
    #[error(transparent)]
    Password(#[from] BadPassword),
    /// Nobody keeps that name by that password.
    #[error("That is not the password of that name, or nobody keeps that name.")]
    Wrong,
    /// The tab, or the session, has become another meanwhile.
    #[error("You are not who you were on that page any more. Go back to the chat and try again.")]
    SomebodyElse,
    /// It was tried too often, and may be tried again after so long.
    #[error("That was tried too often. Please try again in {} seconds.", .0.as_secs() + 1)]
    TooOften(Duration),
    /// Too many are at it.
    #[error("Too many people are at this. Please try again in a moment.")]
    Busy,
    /// A failure of ours.
    #[error("That did not work on our side. Please try again.")]
    Trouble(#[from] StoreError),
}

type Result<T> = std::result::Result<T, Denied>;

/// What is remembered of those who try.
pub(super) struct Accounts {
    tries: Mutex<Tries>,
    waiting: Arc<Semaphore>,
    hashing: Arc<Semaphore>,
}

struct Tries {
    of_addresses: Allowance<IpAddr>,
    of_names: Allowance<String>,
}

/// So many at once, and one more after each `every`.
struct Allowance<K> {
    burst: u32,
    every: Duration,
    /// When all of it is there again.
    whole: HashMap<K, Instant>,
}

impl<K: Eq + Hash + Clone> Allowance<K> {
    fn new((burst, every): (u32, Duration)) -> Self {
        Self {
            burst,
            every,
            whole: HashMap::new(),
        }
    }

    /// How long until there is one.
    fn wait(&self, key: &K, now: Instant) -> Duration {
        let whole = self.whole.get(key).copied().unwrap_or(now).max(now);
        (whole + self.every).saturating_duration_since(now + self.every * self.burst)
    }

    fn take(&mut self, key: &K, now: Instant) {
        if self.whole.len() >= REMEMBERED && !self.whole.contains_key(key) {
            self.whole.retain(|_, whole| now < *whole);
            // Whoever has tried least often loses least by being forgotten.
            let least = self.whole.iter().min_by_key(|(_, whole)| **whole);
            if self.whole.len() >= REMEMBERED
                && let Some(least) = least.map(|(key, _)| key.clone())
            {
                self.whole.remove(&least);
            }
        }
        let whole = self.whole.entry(key.clone()).or_insert(now);
        *whole = (*whole).max(now) + self.every;
    }

    fn give_back(&mut self, key: &K) {
        if let Some(whole) = self.whole.get_mut(key) {
            *whole -= self.every;
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        // Half of the processors are left to those who chat.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            tries: Mutex::new(Tries {
                of_addresses: Allowance::new(OF_ADDRESS),
                of_names: Allowance::new(OF_NAME),
            }),
            waiting: Arc::new(Semaphore::new(WAITING)),
            hashing: Arc::new(Semaphore::new((processors / 2).clamp(1, 4))),
        }
    }
}

impl Accounts {
    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock()
    }

    /// One more try from that address, at that name, if that is not too often.
    fn allow(&self, address: IpAddr, name: Option<&String>) -> Result<()> {
        let (mut tries, now) = (self.tries(), Instant::now());
        let of_name = name.map_or(Duration::ZERO, |name| tries.of_names.wait(name, now));
        let wait = tries.of_addresses.wait(&address, now).max(of_name);
        if !wait.is_zero() {
            return Err(Denied::TooOften(wait));
        }
        tries.of_addresses.take(&address, now);
        if let Some(name) = name {
            tries.of_names.take(name, now);
        }
        Ok(())
    }

    /// It was no guess.
    fn give_back(&self, address: IpAddr, name: &String) {
        let mut tries = self.tries();
        tries.of_addresses.give_back(&address);
        tries.of_names.give_back(name);
    }

    /// Does something that takes much time and memory, beside only a few others who do.
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

/// Argon2id with the crate's parameters, which are those of OWASP's Password Storage Cheat Sheet:
/// 19 MiB, two passes, one lane.
fn hash(password: &Password) -> PasswordHash {
    let hash = Argon2::default().hash_password(password.as_bytes());
    // It fails for parameters out of range, and without the system's random source.
    PasswordHash(hash.expect("passwords can be hashed").to_string())
}

fn is(hash: &PasswordHash, typed: &str) -> bool {
    phc::PasswordHash::new(&hash.0).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(typed.as_bytes(), &hash)
            .is_ok()
    })
}

/// What is the same for all ways to write a name, as the store has them.
fn key_of(name: &str) -> String {
    let words: Vec<_> = name.split_whitespace().collect();
    let key = GroupName::key_of(&words.join(" "));
    key.chars().take(NAME_CHARACTERS).collect()
}

impl Chat {
    /// The guest of that tab keeps who they are, and has signed in.
    pub async fn keep(
        &self,
        tab: &ResumeToken,
        password: &str,
        by: &Visitor,
    ) -> Result<SessionToken> {
        let password = Password::new(password)?;
        if self
            .store
            .client_by_token(tab.hash(), None)
            .await?
            .is_none()
        {
            return Err(Denied::SomebodyElse);
        }
        self.accounts.allow(by.address, None)?;
        let hash = self.accounts.hash(password).await?;
        let (token, session) = new_session(by);
        let begun = self.store.register(tab.hash(), hash, session).await?;
        let begun = begun.ok_or(Denied::SomebodyElse)?;
        let user = &begun.session.user;
        for tab in self.hub.of_user(user.id) {
            tab.keep();
        }
        tracing::info!(user.id = user.id.0, "kept a name");
        self.end_clients(user.id).await;
        self.begun(&begun).await;
        Ok(token)
    }

    /// Whoever keeps that name signs in.
    pub async fn sign_in(&self, name: &str, password: &str, by: &Visitor) -> Result<SessionToken> {
        let name = key_of(name);
        let refused = self.accounts.allow(by.address, Some(&name));
        refused.inspect_err(|_| tracing::info!("signing in was tried too often"))?;
        let (user, hash) = match self.store.account(&name).await? {
            Some((user, hash)) => (Some(user), hash),
            None => (None, PasswordHash(NOBODYS.to_owned())),
        };
        let is_right = self.accounts.is(hash.clone(), password).await?;
        let known = user.as_ref().map(|user| user.id.0);
        let Some(user) = user.filter(|_| is_right) else {
            tracing::info!(user.id = known, "signing in was refused");
            return Err(Denied::Wrong);
        };
        let (token, session) = new_session(by);
        let begun = self.store.sign_in(user.id, hash, session).await?;
        let begun = begun.ok_or(Denied::Wrong)?;
        self.accounts.give_back(by.address, &name);
        tracing::info!(user.id = user.id.0, "signed in");
        self.begun(&begun).await;
        Ok(token)
    }

    /// Their session ends, and with it every socket that came by it.
    pub async fn sign_out(&self, session: &SessionToken) -> Result<()> {
        if let Some(ended) = self.store.sign_out(session.hash()).await? {
            tracing::info!(user.id = ended.user.id.0, "signed out");
            self.end_clients(ended.user.id).await;
        }
        Ok(())
    }

    /// Whoever has signed in has another password from now on, and all their other sessions end.
    pub async fn change_password(&self, was: &str, password: &str, by: &Visitor) -> Result<()> {
        let password = Password::new(password)?;
        let token = by.session.as_ref().ok_or(Denied::SomebodyElse)?.hash();
        let session = self.store.session(token).await?;
        let Session { user, .. } = session.ok_or(Denied::SomebodyElse)?;
        self.accounts.allow(by.address, Some(&user.name))?;
        let account = self.store.account(&user.name).await?;
        let (_, former) = account.ok_or(Denied::SomebodyElse)?;
        if !self.accounts.is(former.clone(), was).await? {
            tracing::info!(user.id = user.id.0, "another password was refused");
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

    /// Who has signed in by that session and is a moderator.
    pub async fn moderator(&self, session: Option<&SessionToken>) -> Result<Option<User>> {
        let Some(session) = self.signed_in(session).await? else {
            return Ok(None);
        };
        let standing = self.store.standing(session.id).await?;
        Ok(standing.moderator.then_some(session))
    }

    /// Who has signed in by that session.
    pub async fn signed_in(&self, session: Option<&SessionToken>) -> Result<Option<User>> {
        let Some(session) = session else {
            return Ok(None);
        };
        let session = self.store.session(session.hash()).await?;
        Ok(session.map(|session| session.user))
    }

    /// Whether that is an address that makes a moderator, which nobody can guess.
    pub async fn is_admin_link(&self, link: &ResumeToken) -> Result<bool> {
        Ok(self.store.is_admin_link(link.hash()).await?)
    }

    /// Whoever has signed in is a moderator from now on.
    pub async fn become_moderator(&self, link: &ResumeToken, by: &Visitor) -> Result<()> {
        let user = self.signed_in(by.session.as_ref()).await?;
        let user = user.ok_or(Denied::SomebodyElse)?;
        match self.store.become_moderator(link.hash(), user.id).await? {
            true => tracing::info!(user.id = user.id.0, "became a moderator"),
            false => return Err(Denied::SomebodyElse),
        }
        // The groups that are for moderators are theirs too.
        for tab in self.hub.of_user(user.id) {
            tab.outdate_groups();
        }
        Ok(())
    }

    /// Somebody who has not signed in is from now on a moderator by a name of their own, which they
    /// keep by that password.
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

    /// Some of this person's clients have ended: their sockets are closed, on whichever node.
    async fn end_clients(&self, user: UserId) {
        self.tell_others(News::Ended(user));
        if let Err(failure) = self.end_strays(self.hub.of_user(user)).await {
            tracing::warn!(?failure, "sockets that are to end do so a little later");
        }
    }

    /// Those of these sockets are closed whose clients stand no more, or look at a group which they may
    /// not be in.
    pub(super) async fn end_strays(&self, tabs: Vec<Arc<Outbox>>) -> super::Result<()> {
        // Of a client that has been taken over here the former socket is closed already. One on its way
        // in counts as still in the room it was in before; it enters one, or is refused, in a moment.
        let is_in = |tab: &Arc<Outbox>| {
            let newest = self.hub.of_client(tab.client);
            let has_entered = tab.place().is_some() || tab.dialect.feed() == Feed::Nothing;
            has_entered && newest.is_some_and(|newest| newest.visit == tab.visit)
        };
        let tabs: Vec<_> = tabs.into_iter().filter(is_in).collect();
        if tabs.is_empty() {
            return Ok(());
        }
        let clients = tabs.iter().map(|tab| ClientRef {
            client: tab.client,
            visit: tab.visit,
        });
        let strays = self.store.stale_clients(clients.collect()).await?;
        let strays: HashSet<_> = strays.into_iter().collect();
        let strays = tabs.into_iter().filter(|tab| strays.contains(&tab.client));
        self.send_away(&Vec::from_iter(strays)).await
    }

    /// These sockets are closed: of whoever is banned as such, of others to come again.
    pub(super) async fn send_away(&self, tabs: &[Arc<Outbox>]) -> super::Result<()> {
        if tabs.is_empty() {
            return Ok(());
        }
        let users = tabs.iter().map(|tab| tab.user).collect();
        let banned: HashSet<_> = self.store.banned(users).await?.into_iter().collect();
        for tab in tabs {
            match banned.contains(&tab.user) {
                true => self.close_banned(tab),
                false => tab.close(COME_AGAIN),
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
        // Comparing with nobody's takes the same work and comes to nothing.
        assert!(NOBODYS.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(phc::PasswordHash::new(NOBODYS).is_ok());
        assert_eq!(hash.0.len(), NOBODYS.len());
        assert!(!is(&PasswordHash(NOBODYS.to_owned()), ""));
    }

    #[test]
    fn tries_are_used_up_and_come_back_one_by_one() {
        let (mut tries, now) = (Allowance::new((3, 10 * SECOND)), Instant::now());
        for _ in 0..3 {
            assert_eq!(tries.wait(&'a', now), Duration::ZERO);
            tries.take(&'a', now);
        }
        assert_eq!(tries.wait(&'a', now), 10 * SECOND);
        assert_eq!(tries.wait(&'b', now), Duration::ZERO);
        assert_eq!(tries.wait(&'a', now + 4 * SECOND), 6 * SECOND);
        let later = now + 10 * SECOND;
        assert_eq!(tries.wait(&'a', later), Duration::ZERO);
        tries.take(&'a', later);
        assert_eq!(tries.wait(&'a', later), 10 * SECOND);
        tries.give_back(&'a');
        assert_eq!(tries.wait(&'a', later), Duration::ZERO);
    }

    #[test]
    fn of_countless_names_those_are_remembered_that_were_tried_most() {
        let (mut tries, now) = (Allowance::new((3, 10 * SECOND)), Instant::now());
        for _ in 0..3 {
            tries.take(&0, now);
        }
        for name in 1..REMEMBERED + 100 {
            tries.take(&name, now);
        }
        assert_eq!(tries.whole.len(), REMEMBERED);
        assert_eq!(tries.wait(&0, now), 10 * SECOND);
        // Those that are whole again make room.
        tries.take(&usize::MAX, now + 60 * SECOND);
        assert_eq!(tries.whole.len(), 1);
    }

    #[test]
    fn one_address_cannot_use_up_a_name_for_good() {
        assert!(OF_NAME.1 < OF_ADDRESS.1);
    }

    #[test]
    fn a_name_is_tried_as_one_however_it_is_written() {
        assert_eq!(key_of("  ANNA \u{a0} Lee "), "anna lee");
        assert_eq!(key_of(&"x".repeat(5000)).len(), NAME_CHARACTERS);
    }
}
