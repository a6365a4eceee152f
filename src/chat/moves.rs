//! Who has come to a room and who has gone lately, for the quiet lines that say so.
//!
//! It counts the tabs of this node that look at a room and is told what time it is; it knows no
//! clock, store or HTML. A person comes with the first tab and has gone when the last one has been
//! away for [`GRACE`], so that a reload is neither.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::people::GRACE;
use crate::model::{RoomId, User, UserId};

/// How long a line says that somebody came or went.
const SAID_FOR: Duration = Duration::from_secs(60);
/// How many who came or went a room remembers at most.
const REMEMBERED: usize = 10_000;
/// How many are told by name, of however many.
const NAMED: usize = 3;

/// The comings and goings of all rooms.
#[derive(Default)]
pub(super) struct Moves {
    rooms: HashMap<RoomId, Room>,
    /// In the order of time: when to look whether somebody has gone.
    going: VecDeque<(Instant, RoomId, UserId)>,
    /// The same: when to look whether something has been said for long enough.
    fading: VecDeque<(Instant, RoomId)>,
}

#[derive(Default)]
struct Room {
    people: HashMap<UserId, Here>,
    /// The newest last; of each person only the last thing they did.
    recent: VecDeque<Move>,
    /// Who came and who went since that was asked last.
    news: Lines,
}

struct Here {
    name: String,
    tabs: usize,
    /// Since when there is no tab.
    away: Option<Instant>,
}

struct Move {
    at: Instant,
    user: UserId,
    name: String,
    came: bool,
}

/// Who came and who went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) came: Names,
    pub(super) went: Names,
}

/// Some people by name, and how many there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Of more than one too many only [`NAMED`] are told.
    names: Vec<String>,
    count: usize,
}

impl Names {
    fn add(&mut self, name: &str) {
        self.count += 1;
        if self.names.len() <= NAMED {
            self.names.push(name.to_owned());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// In a sentence: anna, bob and carl; of many the first three and the number of the rest.
    pub(super) fn words(&self) -> String {
        match self.names.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [most @ .., last] if self.count <= NAMED + 1 => {
                format!("{} and {last}", most.join(", "))
            }
            names => {
                let names = names.iter().take(NAMED).cloned().collect::<Vec<_>>();
                format!("{} and {} others", names.join(", "), self.count - NAMED)
            }
        }
    }
}

impl Moves {
    /// A tab of somebody looks at the room, which is told unless it happens in `silence`.
    pub(super) fn enter(&mut self, room: RoomId, user: &User, silence: bool, now: Instant) {
        let people = &mut self.rooms.entry(room).or_default().people;
        let is_new = !people.contains_key(&user.id);
        let here = people.entry(user.id).or_insert_with(|| Here {
            name: user.called().to_owned(),
            tabs: 0,
            away: None,
        });
        here.tabs += 1;
        here.away = None;
        if is_new && !silence {
            self.tell(room, user.id, user.called().to_owned(), true, now);
        }
    }

    /// Somebody who is in the room has another name; what has been told stays as it was.
    pub(super) fn rename(&mut self, room: RoomId, user: &User) {
        let here = self
            .rooms
            .get_mut(&room)
            .and_then(|room| room.people.get_mut(&user.id));
        if let Some(here) = here {
            user.called().clone_into(&mut here.name);
        }
    }

    /// A tab of somebody looks at the room no more.
    pub(super) fn leave(&mut self, room: RoomId, user: UserId, now: Instant) {
        let Some(here) = self
            .rooms
            .get_mut(&room)
            .and_then(|room| room.people.get_mut(&user))
        else {
            return;
        };
        here.tabs = here.tabs.saturating_sub(1);
        if here.tabs == 0 {
            here.away = Some(now);
            self.going.push_back((now + GRACE, room, user));
        }
    }

    /// Lets time pass. Answers the rooms whose lines are different now.
    pub(super) fn pass(&mut self, now: Instant) -> HashSet<RoomId> {
        let mut changed = HashSet::new();
        while let Some((_, id, user)) = self.going.pop_front_if(|next| next.0 <= now) {
            let Some(room) = self.rooms.get_mut(&id) else {
                continue;
            };
            let away = room.people.get(&user).and_then(|here| here.away);
            if away.is_some_and(|away| away + GRACE <= now)
                && let Some(here) = room.people.remove(&user)
            {
                self.tell(id, user, here.name, false, now);
                changed.insert(id);
            }
        }
        while let Some((_, id)) = self.fading.pop_front_if(|next| next.0 <= now) {
            let Entry::Occupied(mut room) = self.rooms.entry(id) else {
                continue;
            };
            room.get_mut().recent.retain(|one| now < one.at + SAID_FOR);
            if room.get().people.is_empty() && room.get().recent.is_empty() {
                room.remove();
            }
            changed.insert(id);
        }
        changed
    }

    /// What is said of a room.
    pub(super) fn lines(&self, room: RoomId) -> Lines {
        let mut lines = Lines::default();
        for one in self
            .rooms
            .get(&room)
            .into_iter()
            .flat_map(|room| room.recent.iter().rev())
        {
            match one.came {
                true => lines.came.add(&one.name),
                false => lines.went.add(&one.name),
            }
        }
        lines
    }

    /// Who came and who went since this was asked last, the newest last.
    pub(super) fn take_news(&mut self, room: RoomId) -> Lines {
        let room = self.rooms.get_mut(&room);
        room.map(|room| std::mem::take(&mut room.news))
            .unwrap_or_default()
    }

    fn tell(&mut self, room: RoomId, user: UserId, name: String, came: bool, at: Instant) {
        self.fading.push_back((at + SAID_FOR, room));
        let Room { recent, news, .. } = self.rooms.entry(room).or_default();
        let names = match came {
            true => &mut news.came,
            false => &mut news.went,
        };
        names.add(&name);
        recent.retain(|one| one.user != user);
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(Move {
            at,
            user,
            name,
            came,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomId = RoomId(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn user(name: &str) -> User {
        User {
            id: UserId(name.len().cast_signed() as i64),
            name: name.to_owned(),
            display_name: None,
        }
    }

    #[track_caller]
    fn check(moves: &Moves, came: &[&str], went: &[&str]) {
        let lines = moves.lines(ROOM);
        assert_eq!((lines.came, lines.went), (told(came), told(went)));
    }

    fn told(names: &[&str]) -> Names {
        let mut told = Names::default();
        names.iter().for_each(|name| told.add(name));
        told
    }

    #[test]
    fn names_stand_in_a_sentence() {
        #[track_caller]
        fn check(names: &[&str], expected: &str) {
            assert_eq!(told(names).words(), expected);
        }
        check(&[], "");
        check(&["anna"], "anna");
        check(&["anna", "bob"], "anna and bob");
        check(&["anna", "bob", "carl", "dora"], "anna, bob, carl and dora");
        check(&["a", "b", "c", "d", "e"], "a, b, c and 2 others");
        check(&["a"; 200], "a, a, a and 197 others");
    }

    #[test]
    fn whoever_comes_and_goes_is_told_for_a_while() {
        let (mut moves, now) = (Moves::default(), Instant::now());
        moves.enter(ROOM, &user("bo"), false, now);
        moves.enter(ROOM, &user("anna"), false, now + SECOND);
        check(&moves, &["anna", "bo"], &[]);
        moves.leave(ROOM, user("bo").id, now + 2 * SECOND);
        assert!(moves.pass(now + 3 * SECOND).is_empty());
        check(&moves, &["anna", "bo"], &[]);
        assert_eq!(moves.pass(now + 2 * SECOND + GRACE), HashSet::from([ROOM]));
        check(&moves, &["anna"], &["bo"]);
        assert_eq!(moves.pass(now + SECOND + SAID_FOR), HashSet::from([ROOM]));
        check(&moves, &[], &["bo"]);
        assert_eq!(
            moves.pass(now + 2 * SECOND + GRACE + SAID_FOR),
            HashSet::from([ROOM])
        );
        check(&moves, &[], &[]);
        assert_eq!(moves.rooms.len(), 1);
        moves.leave(ROOM, user("anna").id, now + 2 * SAID_FOR);
        moves.pass(now + 2 * SAID_FOR + GRACE);
        moves.pass(now + 3 * SAID_FOR + GRACE);
        assert!(moves.rooms.is_empty() && moves.going.is_empty() && moves.fading.is_empty());
    }

    #[test]
    fn a_reload_and_a_second_tab_are_no_news() {
        let (mut moves, now) = (Moves::default(), Instant::now());
        let anna = user("anna");
        moves.enter(ROOM, &anna, true, now);
        check(&moves, &[], &[]);
        moves.leave(ROOM, anna.id, now);
        moves.enter(ROOM, &anna, false, now + SECOND);
        assert!(moves.pass(now + GRACE).is_empty());
        moves.enter(ROOM, &anna, false, now + GRACE);
        moves.leave(ROOM, anna.id, now + GRACE);
        assert!(moves.pass(now + 3 * GRACE).is_empty());
        check(&moves, &[], &[]);
        // Back and away again: the grace begins anew.
        moves.leave(ROOM, anna.id, now + 4 * GRACE);
        moves.enter(ROOM, &anna, false, now + 4 * GRACE + SECOND);
        moves.leave(ROOM, anna.id, now + 4 * GRACE + 2 * SECOND);
        assert!(moves.pass(now + 5 * GRACE + SECOND).is_empty());
        assert_eq!(
            moves.pass(now + 5 * GRACE + 2 * SECOND),
            HashSet::from([ROOM])
        );
        check(&moves, &[], &["anna"]);
    }

    #[test]
    fn of_many_only_the_last_are_remembered() {
        let (mut moves, now) = (Moves::default(), Instant::now());
        for id in 0..11_000 {
            let name = format!("user{id}");
            moves.enter(
                ROOM,
                &User {
                    id: UserId(id),
                    name,
                    display_name: None,
                },
                false,
                now,
            );
        }
        let lines = moves.lines(ROOM);
        assert_eq!(
            (lines.came.count, &*lines.came.names[0]),
            (REMEMBERED, "user10999")
        );
    }
}
