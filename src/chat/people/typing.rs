//! Who is typing in which room. Never stored; it is told what time it is, and knows no HTML.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::{RoomId, User, UserId};

/// For so long after the last sign of it somebody counts as typing. A tab gives a sign every
/// 2.5 s, and whoever has vanished is to be gone within 6 s.
const TYPING_FOR: Duration = Duration::from_secs(5);
/// How many are remembered of a room: from three on they are not told by name.
const REMEMBERED: usize = 10;

/// Who is typing.
#[derive(Default)]
pub(super) struct Typing(HashMap<RoomId, Vec<Typist>>);

struct Typist {
    user: User,
    until: Instant,
}

impl Typing {
    /// Somebody types. Answers whether they did not before.
    pub(super) fn begin(&mut self, room: RoomId, user: &User, now: Instant) -> bool {
        let typists = self.0.entry(room).or_default();
        let (until, full) = (now + TYPING_FOR, typists.len() == REMEMBERED);
        match typists.iter_mut().find(|one| one.user.id == user.id) {
            Some(known) => known.until = until,
            None if full => {}
            None => {
                let user = user.clone();
                typists.push(Typist { user, until });
                return true;
            }
        }
        false
    }

    /// Somebody has sent it, or has gone. Answers whether they had been typing.
    pub(super) fn end(&mut self, room: RoomId, user: UserId) -> bool {
        let Some(typists) = self.0.get_mut(&room) else {
            return false;
        };
        let before = typists.len();
        typists.retain(|one| one.user.id != user);
        let ended = typists.len() < before;
        if typists.is_empty() {
            self.0.remove(&room);
        }
        ended
    }

    /// Somebody has another name. Answers where they are typing.
    pub(super) fn rename(&mut self, user: &User) -> Vec<RoomId> {
        let mut rooms = Vec::new();
        for (room, typists) in &mut self.0 {
            if let Some(typist) = typists.iter_mut().find(|one| one.user.id == user.id) {
                typist.user = user.clone();
                rooms.push(*room);
            }
        }
        rooms
    }

    /// Lets time pass. Answers the rooms where somebody has stopped.
    pub(super) fn pass(&mut self, now: Instant) -> Vec<RoomId> {
        let mut changed = Vec::new();
        self.0.retain(|room, typists| {
            let before = typists.len();
            typists.retain(|one| now < one.until);
            if typists.len() < before {
                changed.push(*room);
            }
            !typists.is_empty()
        });
        changed
    }

    /// Who is typing in a room, the first who began first.
    pub(super) fn of(&self, room: RoomId) -> Vec<User> {
        let typists = self.0.get(&room).into_iter().flatten();
        typists.map(|one| one.user.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomId = RoomId(1);

    fn user(id: i64) -> User {
        User {
            id: UserId(id),
            name: format!("user{id}"),
            display_name: None,
        }
    }

    #[test]
    fn whoever_gives_no_sign_has_stopped() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(typing.begin(ROOM, &user(1), now));
        assert!(typing.begin(ROOM, &user(2), now + second));
        assert!(!typing.begin(ROOM, &user(1), now + 2 * second));
        assert!(typing.pass(now + 5 * second).is_empty());
        assert_eq!(typing.pass(now + 6 * second), [ROOM]);
        assert_eq!(typing.of(ROOM), [user(1)]);
        assert_eq!(typing.pass(now + 7 * second), [ROOM]);
        assert!(typing.of(ROOM).is_empty() && typing.0.is_empty());
    }

    #[test]
    fn it_ends_at_once_where_it_is_sent() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        typing.begin(ROOM, &user(1), now);
        assert!(!typing.end(RoomId(2), user(1).id));
        assert!(!typing.end(ROOM, user(2).id));
        assert!(typing.end(ROOM, user(1).id));
        assert!(typing.0.is_empty());
    }

    #[test]
    fn whoever_types_does_so_by_the_name_they_have() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        typing.begin(ROOM, &user(1), now);
        typing.begin(RoomId(2), &user(2), now);
        let renamed = User {
            display_name: Some("Anna".to_owned()),
            ..user(1)
        };
        assert_eq!(typing.rename(&renamed), [ROOM]);
        assert_eq!(typing.of(ROOM), [renamed]);
    }

    #[test]
    fn a_crowd_fills_no_memory() {
        let (mut typing, now) = (Typing::default(), Instant::now());
        for id in 0..1000 {
            typing.begin(ROOM, &user(id), now);
        }
        assert_eq!(typing.of(ROOM).len(), REMEMBERED);
    }
}
