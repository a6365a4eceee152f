//! Plausible users, repeatable from a seed.

use std::collections::HashSet;

use fake::Fake as _;
use fake::faker::name::en::FirstName;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::NewUser;

/// An endless sequence of users without repeated names or e-mail addresses: `brenda82`,
/// `brenda82@example.com`. The same seed gives the same sequence.
pub struct FakeUsers {
    rng: StdRng,
    made: HashSet<String>,
}

impl FakeUsers {
    /// The sequence of that seed.
    pub fn from_seed(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            made: HashSet::new(),
        }
    }

    /// A sequence with a random seed.
    pub fn random() -> Self {
        Self::from_seed(rand::random())
    }

    fn name(&mut self, numbers: u32) -> String {
        let first: String = FirstName().fake_with_rng(&mut self.rng);
        let mut name: String = first
            .chars()
            .filter(char::is_ascii_alphabetic)
            .collect::<String>()
            .to_lowercase();
        if name.is_empty() {
            name.push_str("person");
        }
        format!("{name}{}", self.rng.random_range(1..=numbers))
    }
}

impl Iterator for FakeUsers {
    type Item = NewUser;

    fn next(&mut self) -> Option<NewUser> {
        // The sequence is endless: the more names are taken, the longer the numbers.
        let mut numbers = 99;
        loop {
            let name = self.name(numbers);
            if self.made.insert(name.clone()) {
                let email = format!("{name}@example.com");
                return Some(NewUser { name, email });
            }
            numbers = numbers.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_users_again() {
        let some = |seed| FakeUsers::from_seed(seed).take(50).collect::<Vec<_>>();
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
    }

    #[test]
    fn no_name_comes_twice_and_all_can_be_typed() {
        let names: Vec<_> = FakeUsers::from_seed(1)
            .take(50_000)
            .map(|user| user.name)
            .collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        for name in names {
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
            assert!(
                name.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()),
                "{name}"
            );
            assert!((2..=32).contains(&name.len()), "{name}");
        }
    }
}
