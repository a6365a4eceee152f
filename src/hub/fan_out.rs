//! Brings the steps of a room to its tabs.
//!
//! A room of a few tabs is served at once. The tabs of a larger one are divided among tasks, which give way to
//! others after every few tabs. Steps that come meanwhile wait, and are then shown together. So each tab gets the
//! steps in their order, all processors share the work, and nobody waits behind a large room.
//!
//! A write of several steps costs hardly more than one of a single step. So where people write faster than all tabs
//! can be served, each round waits a little for what they write next.

use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::{JoinSet, yield_now};

use super::{ActiveRoom, Outbox};
use crate::model::{History, RoomId, UserId, Version};
use crate::protocol::{Dialect, Frame};

/// So many tabs are served at once, without a task.
const INLINE: usize = 8;
/// How many tabs a task serves before others have a turn.
const AT_ONCE: usize = 64;
/// How many tabs are worth a task.
const SHARE: usize = 256;
/// If more steps wait than these bytes, the tabs catch up on their own.
const WAITING_BYTES: usize = 1 << 20;

/// How long the next round waits at most after one of several steps. People do not notice it.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(10);

static PROCESSORS: LazyLock<usize> =
    LazyLock::new(|| available_parallelism().map_or(1, |processors| processors.get()));

/// One or several successive changes of a room.
#[derive(Debug)]
pub struct Step {
    /// The number of the version that they follow.
    pub follows: u64,
    /// The version that they lead to.
    pub version: Version,
    /// What browsers are shown.
    pub frames: Vec<Frame>,
    /// What programs get, in each of their dialects. Without an entry for their dialect they catch up on
    /// their own.
    pub for_programs: Vec<(Dialect, Option<Frame>)>,
    /// What single people are shown after it, in browsers.
    pub own: Vec<(UserId, Frame)>,
    /// Whether it follows what was shown in the room before, whatever its history.
    pub(super) continues: bool,
}

/// The steps of a room that its tabs have not been shown.
#[derive(Default)]
pub(super) struct FanOut {
    waiting: Vec<Step>,
    /// A task shows them.
    running: bool,
}

impl Step {
    /// Changes that browsers are shown, and nobody else.
    #[must_use]
    pub fn new(follows: u64, version: Version, frames: Vec<Frame>) -> Self {
        Self {
            follows,
            version,
            frames,
            for_programs: Vec::new(),
            own: Vec::new(),
            continues: true,
        }
    }

    /// Changes that are too many to be shown. No tab has the version that they follow, so all catch up on
    /// their own.
    pub(super) fn leap(version: Version) -> Self {
        Self {
            continues: false,
            ..Self::new(u64::MAX, version, Vec::new())
        }
    }

    /// What single people in the room are shown, after the steps that wait.
    pub(super) fn of_own(room: RoomId, own: Vec<(UserId, Frame)>) -> Self {
        let version = Version {
            room,
            history: History(0),
            number: 0,
        };
        Self {
            own,
            ..Self::new(0, version, Vec::new())
        }
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(Frame::size).sum()
    }
}

impl FanOut {
    pub(super) fn add(&mut self, step: Step) {
        let waiting: usize = self.waiting.iter().map(Step::bytes).sum();
        if waiting + step.bytes() > WAITING_BYTES && !self.waiting.is_empty() {
            let own = self.waiting.drain(..).flat_map(|step| step.own);
            let own = own.chain(step.own).collect();
            let leap = Step::leap(step.version);
            self.waiting.push(Step { own, ..leap });
        } else {
            self.waiting.push(step);
        }
    }

    /// How many steps wait, and how many bytes they have.
    pub(super) fn depth(&self) -> (usize, usize) {
        let bytes = self.waiting.iter().map(Step::bytes).sum();
        (self.waiting.len(), bytes)
    }

    /// Whether the caller has to [`run`] the fan-out.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.running, true)
    }
}

/// What is shown next, and to whom.
struct Round {
    steps: Arc<[Step]>,
    tabs: Arc<Vec<Arc<Outbox>>>,
}

impl ActiveRoom {
    /// `None` ends the fan-out.
    fn next_round(&mut self) -> Option<Round> {
        let steps = std::mem::take(&mut self.fan_out.waiting);
        self.fan_out.running = !steps.is_empty();
        // Whoever enters from now on is brought to these steps or beyond: they are stored.
        self.fan_out.running.then(|| Round {
            steps: steps.into(),
            tabs: Arc::clone(&self.tabs),
        })
    }
}

/// Shows the steps of a room until none is left: at once in a small room, otherwise in the background. The
/// room is not locked meanwhile.
pub(super) fn run(room: Arc<Mutex<ActiveRoom>>) {
    loop {
        let next = room.lock().next_round();
        match next {
            None => return,
            Some(round) if round.tabs.len() > INLINE => {
                tokio::spawn(run_large(room, round));
                return;
            }
            Some(round) => serve(&round.tabs, &round.steps),
        }
    }
}

async fn run_large(room: Arc<Mutex<ActiveRoom>>, first: Round) {
    let mut next = Some(first);
    while let Some(Round { steps, tabs }) = next {
        let began = Instant::now();
        let shown = steps.iter().filter(|step| !step.frames.is_empty()).count();
        // The next steps follow these in every tab.
        for_each(tabs, move |tab| tab.offer(&steps)).await;
        if shown > 1 {
            tokio::time::sleep(LONGEST_PAUSE.min(began.elapsed() / 2)).await;
        }
        next = room.lock().next_round();
    }
}

/// Does something for each tab. Others have turns meanwhile.
async fn for_each(tabs: Arc<Vec<Arc<Outbox>>>, act: impl Fn(&Outbox) + Clone + Send + 'static) {
    let shares = (tabs.len() / SHARE).clamp(1, *PROCESSORS);
    let size = tabs.len().div_ceil(shares).max(1);
    let mut tasks = JoinSet::new();
    for from in (0..tabs.len()).step_by(size) {
        let (tabs, act) = (Arc::clone(&tabs), act.clone());
        tasks.spawn(async move {
            let share = from..tabs.len().min(from + size);
            for some in tabs[share].chunks(AT_ONCE) {
                some.iter().for_each(|tab| act(tab));
                yield_now().await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Sends what was put into these outboxes. If each of thousands of sockets were woken for that, everything else would
/// wait for all of them.
pub(super) fn flush(tabs: Vec<Arc<Outbox>>) {
    match tabs.len() > INLINE {
        true => drop(tokio::spawn(for_each(Arc::new(tabs), Outbox::flush))),
        false => tabs.iter().for_each(|tab| tab.flush()),
    }
}

fn serve(tabs: &[Arc<Outbox>], steps: &[Step]) {
    tabs.iter().for_each(|tab| tab.offer(steps));
}
