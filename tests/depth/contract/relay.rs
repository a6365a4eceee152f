//! What every relay promises. It may lose, double and delay, but not make things up, and it never
//! keeps anybody waiting.

use std::sync::Arc;
use std::time::Duration;

use overwire::model::{History, NodeId, RoomId, UserId, Version};
use overwire::protocol::{Push, Selector};
use overwire::relay::{Envelope, InProcess, News, Relay};
use tokio::sync::mpsc::Receiver;

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const DEADLINE: Duration = Duration::from_secs(10);

/// Nodes that are joined by one relay of a kind, each by an end of its own.
trait Backend {
    fn end(&self) -> Arc<dyn Relay>;
}

impl Backend for InProcess {
    fn end(&self) -> Arc<dyn Relay> {
        Arc::new(self.clone())
    }
}

macro_rules! every_promise {
    ($backend:expr; $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                super::$promise(&$backend).await;
            }
        )*
    };
}

mod in_process {
    every_promise! { super::InProcess::default();
        news_reach_every_other_node_in_order
        ones_own_news_do_not_come_back
        what_is_told_arrives_whole
        a_node_knows_whether_there_are_others
        a_node_that_does_not_listen_keeps_nobody_waiting
        a_node_that_has_gone_disturbs_nobody
        a_node_alone_may_speak
    }
}

fn mine(node: NodeId, user: i64) -> Envelope {
    let news = News::Mine(UserId(user));
    Envelope { node, news }
}

async fn next(news: &mut Receiver<Envelope>) -> Envelope {
    let next = tokio::time::timeout(DEADLINE, news.recv()).await;
    next.unwrap().unwrap()
}

/// Who sent it, and about whom.
async fn next_mine(news: &mut Receiver<Envelope>) -> (NodeId, i64) {
    match next(news).await {
        Envelope {
            node,
            news: News::Mine(user),
        } => (node, user.0),
        other => panic!("{other:?}"),
    }
}

async fn news_reach_every_other_node_in_order(backend: &impl Backend) {
    let ends = NODES.map(|_| backend.end());
    let mut heard = Vec::new();
    for (end, node) in ends.iter().zip(NODES) {
        heard.push(end.listen(node).await);
    }
    (1..=100).for_each(|user| ends[0].announce(mine(NODES[0], user)));
    for news in &mut heard[1..] {
        for user in 1..=100 {
            assert_eq!(next_mine(news).await, (NODES[0], user));
        }
    }
}

async fn ones_own_news_do_not_come_back(backend: &impl Backend) {
    let (one, two) = (backend.end(), backend.end());
    let mut heard = one.listen(NODES[0]).await;
    let _listening = two.listen(NODES[1]).await;
    one.announce(mine(NODES[0], 1));
    two.announce(mine(NODES[1], 2));
    assert_eq!(next_mine(&mut heard).await, (NODES[1], 2));
}

async fn what_is_told_arrives_whole(backend: &impl Backend) {
    let (one, two) = (backend.end(), backend.end());
    let _listening = one.listen(NODES[0]).await;
    let mut heard = two.listen(NODES[1]).await;
    let told = Version {
        room: RoomId(5),
        history: History(6),
        number: 7,
    };
    let sent = Push::inner(Selector::NOTICE, "<b>“hello”</b> 👩‍👩‍👧 ".repeat(500)).encode();
    one.announce(Envelope {
        node: NODES[0],
        news: News::Change {
            follows: 6,
            version: told,
            frame: sent.clone(),
        },
    });
    let Envelope {
        node,
        news: News::Change {
            follows,
            version,
            frame,
        },
    } = next(&mut heard).await
    else {
        panic!("a change was told");
    };
    assert_eq!((node, follows, version), (NODES[0], 6, told));
    assert_eq!(frame.bytes(false), sent.bytes(false));
    assert_eq!(frame.bytes(true), sent.bytes(true));
}

async fn a_node_knows_whether_there_are_others(backend: &impl Backend) {
    let (one, two) = (backend.end(), backend.end());
    let _listening = one.listen(NODES[0]).await;
    let _also_listening = two.listen(NODES[1]).await;
    assert!(one.has_others(NODES[0]) && two.has_others(NODES[1]));
}

async fn a_node_that_does_not_listen_keeps_nobody_waiting(backend: &impl Backend) {
    let ends = NODES.map(|_| backend.end());
    let deaf = ends[1].listen(NODES[1]).await;
    let mut heard = ends[2].listen(NODES[2]).await;
    // More than may wait for the deaf one; the third hears each as it comes.
    for user in 1..=10_000 {
        ends[0].announce(mine(NODES[0], user));
        assert_eq!(next_mine(&mut heard).await.1, user);
    }
    drop(deaf);
}

async fn a_node_that_has_gone_disturbs_nobody(backend: &impl Backend) {
    let ends = NODES.map(|_| backend.end());
    drop(ends[1].listen(NODES[1]).await);
    let mut heard = ends[2].listen(NODES[2]).await;
    ends[0].announce(mine(NODES[0], 1));
    assert_eq!(next_mine(&mut heard).await.1, 1);
    // It comes back as another.
    let mut again = ends[1].listen(NODES[1]).await;
    ends[0].announce(mine(NODES[0], 2));
    assert_eq!(next_mine(&mut again).await.1, 2);
    assert_eq!(next_mine(&mut heard).await.1, 2);
}

async fn a_node_alone_may_speak(backend: &impl Backend) {
    let alone = backend.end();
    alone.announce(mine(NODES[0], 1));
    let mut heard = alone.listen(NODES[0]).await;
    alone.announce(mine(NODES[0], 2));
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_process_with_one_node_has_no_others() {
    let relay = InProcess::default();
    let _listening = relay.listen(NODES[0]).await;
    assert!(!relay.has_others(NODES[0]));
    let gone = relay.listen(NODES[1]).await;
    assert!(relay.has_others(NODES[0]));
    drop(gone);
    assert!(!relay.has_others(NODES[0]));
}
