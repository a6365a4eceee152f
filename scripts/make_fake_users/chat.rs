//! Plausible groups, and what people say in them, repeatable from a seed.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use fake::Fake as _;
use fake::faker::{address, company, filesystem, job, name};
use rand::distr::Distribution as _;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use overwire::model::Millis;

/// The languages, and how many of a hundred rooms use each; the busiest groups use the first.
const LANGUAGES: [(&str, u32); 8] = [
    ("english", 68),
    ("german", 8),
    ("french", 5),
    ("spanish", 5),
    ("russian", 4),
    ("japanese", 4),
    ("chinese", 4),
    ("arabic", 2),
];
/// How long ago the first message was written, in days.
const DAYS: f64 = 180.0;
const MILLIS_PER_HOUR: f64 = 3_600_000.0;

/// The lines of `texts.txt` by their section.
static TEXTS: LazyLock<HashMap<&str, Vec<&str>>> = LazyLock::new(|| {
    let sections = include_str!("texts.txt").split('[').skip(1);
    let section = |section: &'static str| {
        let (name, lines) = section.split_once("]\n")?;
        Some((name, lines.lines().collect()))
    };
    sections.filter_map(section).collect()
});

fn one_of(texts: &str, rng: &mut StdRng) -> &'static str {
    TEXTS[texts].choose(rng).copied().unwrap_or_default()
}

/// An endless sequence of groups without repeated names, such as `jazz` and `running-oslo`, and what some
/// of them are about. The same seed gives the same sequence.
pub(crate) struct FakeGroups {
    rng: StdRng,
    made: HashSet<String>,
}

impl FakeGroups {
    /// The sequence of that seed.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            made: HashSet::new(),
        }
    }
}

impl Iterator for FakeGroups {
    type Item = (String, Option<String>);

    fn next(&mut self) -> Option<Self::Item> {
        let rng = &mut self.rng;
        let mut numbers = 1;
        loop {
            let mut name = one_of("groups", rng).to_owned();
            if rng.random_bool(0.9) {
                let between = if rng.random_bool(0.05) { " " } else { "-" };
                name = format!("{name}{between}{}", one_of("places", rng));
            }
            // The more names are taken, the longer the numbers.
            let number = rng.random_range(1..=numbers);
            if number > 1 {
                name = format!("{name}-{number}");
            }
            if self.made.insert(name.clone()) {
                let topic = rng.random_bool(0.4);
                let topic = topic.then(|| company::en::CatchPhrase().fake_with_rng(rng));
                return Some((name, topic));
            }
            numbers = (numbers + 1).min(1_000_000) * 3 / 2;
        }
    }
}

/// One message of a [`FakeChat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The number of the room.
    pub(crate) room: usize,
    /// The number of the person.
    pub(crate) person: usize,
    /// The text.
    pub(crate) text: String,
}

/// A plausible chat: a few busy groups with many members, many quiet ones, and private rooms. The same
/// seed and names give the same chat.
pub(crate) struct FakeChat {
    rng: StdRng,
    people: Vec<String>,
    groups: Vec<String>,
    /// The members of each room by their numbers, those who say the most first: first the groups, the
    /// busiest first, then the private rooms.
    rooms: Vec<Vec<usize>>,
    languages: Vec<&'static str>,
    busy: WeightedIndex<f64>,
    last: Option<(usize, usize)>,
}

impl FakeChat {
    /// A chat of these people, by their user names, in these groups and as many private rooms. `None` if
    /// there are no people or no groups.
    pub(crate) fn from_seed(seed: u64, people: Vec<String>, groups: Vec<String>) -> Option<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let busy = WeightedIndex::new((1..=groups.len()).map(|n| 1.0 / n as f64)).ok()?;
        let mut rooms = vec![Vec::new(); groups.len()];
        for person in 0..people.len() {
            for _ in 0..rng.random_range(1..=9) {
                let members: &mut Vec<usize> = &mut rooms[busy.sample(&mut rng)];
                if members.last() != Some(&person) {
                    members.push(person);
                }
            }
        }
        for members in rooms.iter_mut().filter(|members| members.is_empty()) {
            if people.is_empty() {
                return None;
            }
            members.push(rng.random_range(0..people.len()));
        }
        let pairs = groups.len().min(people.len() / 2);
        let mut paired = HashSet::new();
        while paired.len() < pairs {
            let [one, other] = [(); 2].map(|()| rng.random_range(0..people.len()));
            if one != other && paired.insert([one.min(other), one.max(other)]) {
                rooms.push(vec![one, other]);
            }
        }
        let of_a_hundred = WeightedIndex::new(LANGUAGES.map(|(_, share)| share)).ok()?;
        let languages = (0..rooms.len()).map(|room| match room {
            0..10 => LANGUAGES[0].0,
            _ => LANGUAGES[of_a_hundred.sample(&mut rng)].0,
        });
        Some(Self {
            languages: languages.collect(),
            rng,
            people,
            groups,
            rooms,
            busy,
            last: None,
        })
    }

    /// The members of each room by their numbers: the groups in their order, then the private rooms.
    pub(crate) fn rooms(&self) -> &[Vec<usize>] {
        &self.rooms
    }

    /// How many of the rooms are groups.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The display name that somebody has chosen, if any.
    pub(crate) fn display_name(&mut self, person: usize) -> Option<String> {
        let rng = &mut self.rng;
        let is_chosen = rng.random_bool(0.4);
        is_chosen.then(|| {
            let last: &str = name::en::LastName().fake_with_rng(rng);
            let first = self.people[person].trim_end_matches(|c: char| c.is_ascii_digit());
            let (initial, rest) = first.split_at(1);
            format!("{}{rest} {last}", initial.to_uppercase())
        })
    }

    /// The next message. People answer each other, so most messages follow one in the same room.
    pub(crate) fn say(&mut self) -> Said {
        let rng = &mut self.rng;
        let private = self.rooms.len() - self.groups.len();
        let room = match self.last {
            Some((room, _)) if rng.random_bool(0.7) => room,
            _ if private > 0 && rng.random_bool(0.2) => self.groups.len() + first_of(private, rng),
            _ => self.busy.sample(rng),
        };
        let members = &self.rooms[room];
        let person = match self.last {
            Some((last, person)) if last == room && rng.random_bool(0.3) => person,
            _ if members.len() == 2 => members[rng.random_range(0..2)],
            _ => members[first_of(members.len(), rng)],
        };
        self.last = Some((room, person));
        let text = self.text(room);
        Said { room, person, text }
    }

    /// How many of a room's messages a member has read.
    pub(crate) fn has_read(&mut self, messages: usize) -> usize {
        match self.rng.random_range(0..100) {
            0..60 => messages,
            60..85 => messages - self.rng.random_range(0..=messages.min(30)),
            _ => self.rng.random_range(0..=messages),
        }
    }

    fn text(&mut self, room: usize) -> String {
        let rng = &mut self.rng;
        let sentences = match rng.random_range(0..100) {
            0..20 => return one_of("short", rng).to_owned(),
            20..80 => rng.random_range(1..=2),
            80..97 => rng.random_range(3..=6),
            _ => rng.random_range(10..=25),
        };
        let mut text = String::new();
        for _ in 0..sentences {
            if !text.is_empty() {
                text.push(if self.rng.random_bool(0.2) { '\n' } else { ' ' });
            }
            let mut rest = one_of(self.languages[room], &mut self.rng);
            while let Some((before, after)) = rest.split_once('{') {
                let (slot, after) = after.split_once('}').unwrap_or((after, ""));
                text += before;
                text += &self.filled(slot, room);
                rest = after;
            }
            text += rest;
        }
        text
    }

    /// What fills a place in a sentence.
    fn filled(&mut self, slot: &str, room: usize) -> String {
        let rng = &mut self.rng;
        match slot {
            "at" => {
                let members = &self.rooms[room];
                format!("@{}", self.people[members[first_of(members.len(), rng)]])
            }
            "group" => {
                let name = &self.groups[self.busy.sample(rng)];
                format!("#{name}")
            }
            "person" => match self.languages[room] {
                "japanese" => name::ja_jp::LastName().fake_with_rng(rng),
                "chinese" => name::zh_cn::Name().fake_with_rng(rng),
                "french" => name::fr_fr::FirstName().fake_with_rng(rng),
                "german" => name::de_de::FirstName().fake_with_rng(rng),
                _ => name::en::FirstName().fake_with_rng(rng),
            },
            "city" => address::en::CityName().fake_with_rng(rng),
            "company" => company::en::CompanyName().fake_with_rng(rng),
            "file" => filesystem::en::FileName().fake_with_rng(rng),
            "job" => job::en::Position().fake_with_rng(rng),
            "word" => company::en::BuzzwordTail().fake_with_rng(rng),
            "id" => rng.random_range(1_000..100_000).to_string(),
            _ => rng.random_range(2..90).to_string(),
        }
    }
}

/// The first of some are chosen most often.
fn first_of(count: usize, rng: &mut StdRng) -> usize {
    let place: f64 = rng.random();
    (count as f64 * place.powi(3)) as usize
}

/// When the message at this part of all messages was written, from 0 to less than 1, if the last was
/// written now: most of them in the later months, and none at night.
pub(crate) fn written_at(now: Millis, part: f64) -> Millis {
    let days = DAYS * part.powf(0.7);
    let hours = 24.0 * (DAYS - 1.0 - days.floor()) + 16.0 * (1.0 - days.fract());
    Millis(now.0 - (hours * MILLIS_PER_HOUR) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overwire::fake::FakeUsers;

    use overwire::model::{DisplayName, GroupName, MessageText, Topic};

    fn chat(seed: u64) -> FakeChat {
        let people = FakeUsers::from_seed(seed).take(500).map(|user| user.name);
        let groups = FakeGroups::from_seed(seed).take(100).map(|(name, _)| name);
        FakeChat::from_seed(seed, people.collect(), groups.collect()).unwrap()
    }

    #[test]
    fn a_seed_gives_the_same_chat_again() {
        let some = |seed| {
            let mut chat = chat(seed);
            let said: Vec<_> = (0..100).map(|_| chat.say()).collect();
            (chat.rooms().to_vec(), said)
        };
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
    }

    #[test]
    fn names_and_texts_are_what_people_may_write() {
        let mut keys = HashSet::new();
        for (name, topic) in FakeGroups::from_seed(1).take(20_000) {
            assert!(keys.insert(GroupName::new(&name).unwrap().key()), "{name}");
            assert!(topic.is_none_or(|topic| Topic::new(&topic).unwrap().is_some()));
        }
        let mut chat = chat(1);
        for person in 0..500 {
            if let Some(name) = chat.display_name(person) {
                DisplayName::new(&name).unwrap();
            }
        }
        for _ in 0..2_000 {
            let Said { room, person, text } = chat.say();
            assert!(chat.rooms()[room].contains(&person));
            MessageText::new(&text, 4_000).unwrap();
            assert!(!text.contains(['{', '}']), "{text}");
        }
    }

    #[test]
    fn a_few_groups_are_busy_and_many_are_quiet() {
        let mut chat = chat(2);
        let mut messages = vec![0; chat.rooms().len()];
        for _ in 0..20_000 {
            messages[chat.say().room] += 1;
        }
        assert!(messages[0] > 1_000, "{messages:?}");
        assert!(messages[99] < 200, "{messages:?}");
        assert!(messages[100..].iter().sum::<i32>() > 1_000, "{messages:?}");
        assert!(chat.rooms()[0].len() > 10 * chat.rooms()[99].len());
    }

    #[test]
    fn messages_are_in_the_order_of_their_times() {
        let now = Millis(1_800_000_000_000);
        let times: Vec<_> = (0..1_000)
            .map(|n| written_at(now, f64::from(n) / 1_000.0))
            .collect();
        assert!(times.is_sorted());
        assert!(times[999] < now && times[0].0 < now.0 - 150 * 86_400_000);
    }
}
