//! What every store promises about search: the same queries have the same answers in every database,
//! whether the messages are indexed already or not.

use overwire::model::{MessageId, MessageText, Millis, Target};
use overwire::protocol::ModeratorAction;
use overwire::search::{Found, Query, Unknown};
use overwire::store::Store;

use crate::people::{
    Somebody, amend, arrive, enter_room, hi, make_group, moderate, picture, post, private, promote,
};
use crate::store::Backend;

macro_rules! every_promise {
    ($backend:expr) => {
        promises! { $backend;
            messages_are_found_by_what_is_typed
            a_message_is_found_by_its_present_text
            only_what_one_may_read_is_found
            older_results_reach_the_beginning
            in_many_groups_what_is_rare_there_is_found
            messages_with_files_are_found
            long_messages_are_indexed_few_at_a_time
            what_was_there_before_the_index_is_indexed_in_parts
            what_an_earlier_build_indexed_is_indexed_again
            of_two_that_index_the_same_one_does
        }
    };
}

mod sqlite {
    every_promise!(crate::store::Sqlite::fresh());
}

mod postgres {
    every_promise!(crate::store::Postgres::fresh().await);
}

/// Indexes everything.
async fn index(store: &Store) {
    for room in store.begin_indexing().await.unwrap() {
        while let Some(next) = store.unindexed(room).await.unwrap() {
            store.index(next).await.unwrap();
        }
    }
    while let Some(next) = store.unindexed_before().await.unwrap() {
        store.index(next).await.unwrap();
    }
}

async fn search(store: &Store, me: &Somebody, typed: &str) -> Found {
    let found = store.search(me.user.id, Query::of(typed), None, 50);
    found.await.unwrap()
}

/// The texts of what somebody finds.
async fn found(store: &Store, me: &Somebody, typed: &str) -> Vec<String> {
    let found = search(store, me, typed).await.messages.into_iter();
    found.map(|(message, _)| message.text).collect()
}

/// The date of a moment some days from now.
fn day(days: i64) -> String {
    Millis(Millis::now().0 + days * 24 * 60 * 60 * 1000).to_rfc3339()[..10].to_owned()
}

const TEXTS: [&str; 22] = [
    "The quick brown fox jumps over the lazy dog.",
    "A quick, brown fox!",
    "brown and quick",
    "Café CRÈME für Übermütige in Zürich",
    "STRASSE and Straße",
    "I like C++ and Rust",
    "C# is not C",
    "a+b=c, issue#12",
    "node.js beats nodejs",
    "OR AND NOT NEAR",
    "say \"hello\" (twice)",
    "see https://example.com/a-path?x=1",
    "http is a protocol",
    "東京都に行きました",
    "京都の秋",
    "コーヒーを飲む",
    "สวัสดีครับ ยินดีต้อนรับ",
    "학교에서 만나요",
    "हिन्दी में लिखो",
    "Ёлка и й",
    "deployment deploys deployed",
    "full ﬁne ＷＩＤＥ",
];

pub(crate) async fn messages_are_found_by_what_is_typed(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, bob) = (arrive(&store, "anna").await, arrive(&store, "bob").await);
    let hi = hi(&store).await;
    for text in TEXTS {
        post(&store, &anna, hi, text).await;
    }
    let room = private(&store, &bob, &anna).await;
    post(&store, &bob, room, "a brown secret").await;
    let books = make_group(&store, &bob, "books").await;
    enter_room(&store, &anna, Target::Room(books)).await;
    post(&store, &bob, books, "brown books").await;
    let secret = "a brown secret";
    let dated = |operator: &str, days| format!("{operator}:{} has:link", day(days));
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("fox", vec![TEXTS[1], TEXTS[0]]),
        ("FOX quick", vec![TEXTS[1], TEXTS[0]]),
        ("quick brown", vec![TEXTS[2], TEXTS[1], TEXTS[0]]),
        ("\"quick brown\"", vec![TEXTS[1], TEXTS[0]]),
        ("“quick brown”", vec![TEXTS[1], TEXTS[0]]),
        ("\"brown quick\"", vec![]),
        ("\"quick brown", vec![TEXTS[2], TEXTS[1], TEXTS[0]]),
        ("fo", vec![]),
        ("fo*", vec![TEXTS[1], TEXTS[0]]),
        ("jum*", vec![TEXTS[0]]),
        ("jump*", vec![TEXTS[0]]),
        ("j*", vec![]),
        ("deploy*", vec![TEXTS[20]]),
        ("cafe creme", vec![TEXTS[3]]),
        ("CAFÉ", vec![TEXTS[3]]),
        ("cafe\u{301}", vec![TEXTS[3]]),
        ("uber*", vec![TEXTS[3]]),
        ("strasse", vec![TEXTS[4]]),
        ("straße", vec![TEXTS[4]]),
        ("C++", vec![TEXTS[5]]),
        ("c#", vec![TEXTS[6]]),
        ("c", vec![TEXTS[7], TEXTS[6], TEXTS[5]]),
        ("a+b", vec![TEXTS[7]]),
        ("issue#12", vec![TEXTS[7]]),
        ("node.js", vec![TEXTS[8]]),
        ("node.j", vec![]),
        ("node.js*", vec![TEXTS[8]]),
        ("OR", vec![TEXTS[9]]),
        ("near not", vec![TEXTS[9]]),
        ("\"", vec![]),
        ("*", vec![]),
        ("()", vec![]),
        ("hello (", vec![TEXTS[10]]),
        ("hello'); drop table users --", vec![]),
        ("example.com", vec![TEXTS[11]]),
        ("https://example.com/a-path", vec![TEXTS[11]]),
        ("has:link", vec![TEXTS[11]]),
        ("HAS:link example", vec![TEXTS[11]]),
        ("has:nothing", vec![]),
        ("東京", vec![TEXTS[13]]),
        ("京都", vec![TEXTS[14], TEXTS[13]]),
        ("都", vec![TEXTS[14], TEXTS[13]]),
        ("京", vec![TEXTS[14], TEXTS[13]]),
        ("京都に行", vec![TEXTS[13]]),
        ("東都", vec![]),
        ("コーヒー", vec![TEXTS[15]]),
        ("ｺｰﾋｰ", vec![TEXTS[15]]),
        ("สวัสดี", vec![TEXTS[16]]),
        ("ต้อนรับ", vec![TEXTS[16]]),
        ("학교", vec![TEXTS[17]]),
        ("हिन्दी", vec![TEXTS[18]]),
        ("हन", vec![]),
        ("елка", vec![TEXTS[19]]),
        ("fine", vec![TEXTS[21]]),
        ("wide", vec![TEXTS[21]]),
        (
            "brown",
            vec!["brown books", secret, TEXTS[2], TEXTS[1], TEXTS[0]],
        ),
        ("brown in:#books", vec!["brown books"]),
        ("in:Books", vec!["brown books"]),
        ("in:\"books\" brown", vec!["brown books"]),
        ("in:@bob", vec![secret]),
        ("with:BOB brown", vec![secret]),
        ("brown from:bob", vec!["brown books", secret]),
        ("from:@anna lazy", vec![TEXTS[0]]),
        ("from:me lazy", vec![TEXTS[0]]),
        ("lazy from:bob", vec![]),
        ("from: lazy", vec![]),
        ("before:yesterday", vec![]),
        ("quick:brown", vec![TEXTS[1], TEXTS[0]]),
    ];
    let days = [
        (dated("after", -2), vec![TEXTS[11]]),
        (dated("after", 1), vec![]),
        (dated("before", 2), vec![TEXTS[11]]),
        (dated("before", -1), vec![]),
        (
            format!("{} {}", dated("after", -2), dated("before", 2)),
            vec![TEXTS[11]],
        ),
    ];
    for is_indexed in [false, true] {
        for (typed, expected) in &cases {
            let found = found(&store, &anna, typed).await;
            assert_eq!(found, *expected, "{typed}, indexed: {is_indexed}");
        }
        for (typed, expected) in &days {
            let found = found(&store, &anna, typed).await;
            assert_eq!(found, *expected, "{typed}, indexed: {is_indexed}");
        }
        for (typed, unknown) in [
            ("in:#nowhere fox", Unknown::Room("#nowhere".to_owned())),
            ("from:nobody", Unknown::Person("nobody".to_owned())),
            ("with:anna", Unknown::Room("@anna".to_owned())),
        ] {
            let found = search(&store, &anna, typed).await;
            assert_eq!(found.unknown, Some(unknown));
            assert!(found.messages.is_empty());
        }
        index(&store).await;
    }
    assert!(store.unindexed(hi).await.unwrap().is_none());
    // The index alone is enough.
    store.close().await;
    let store = backend.open().await;
    assert_eq!(found(&store, &anna, "fox").await, [TEXTS[1], TEXTS[0]]);
}

pub(crate) async fn a_message_is_found_by_its_present_text(backend: &impl Backend) {
    let store = backend.open().await;
    let (anna, moderator) = (arrive(&store, "anna").await, arrive(&store, "mona").await);
    promote(&store, &moderator).await;
    let hi = hi(&store).await;
    enter_room(&store, &moderator, Target::Room(hi)).await;
    let first = post(&store, &anna, hi, "red apples").await;
    let second = post(&store, &anna, hi, "red pears").await;
    for indexes in [false, true] {
        let check = async |typed: &str, expected: &[&str]| {
            assert_eq!(found(&store, &anna, typed).await, expected, "{typed}");
            if indexes {
                index(&store).await;
                assert_eq!(found(&store, &anna, typed).await, expected, "{typed}");
            }
        };
        check("red", &["red pears", "red apples"]).await;
        amend(&store, &anna, hi, first.id, Some("green apples"))
            .await
            .unwrap();
        check("red", &["red pears"]).await;
        check("green", &["green apples"]).await;
        amend(&store, &anna, hi, first.id, Some("red apples"))
            .await
            .unwrap();
        check("green", &[]).await;
        let deleted = amend(&store, &moderator, hi, second.id, None).await;
        assert!(deleted.unwrap().deleted);
        check("red", &["red apples"]).await;
        let (message, room) = (second.id, hi);
        moderate(
            &store,
            &moderator,
            ModeratorAction::RestoreMessage { message, room },
        )
        .await;
        check("red", &["red pears", "red apples"]).await;
    }
    amend(&store, &anna, hi, first.id, None).await.unwrap();
    index(&store).await;
    assert_eq!(found(&store, &anna, "red").await, ["red pears"]);
    store.reset().await.unwrap();
    let carl = arrive(&store, "carl").await;
    // Its id may be one that was given before.
    post(&store, &carl, crate::people::hi(&store).await, "blue plums").await;
    for _ in 0..2 {
        assert!(found(&store, &carl, "red").await.is_empty());
        assert_eq!(found(&store, &carl, "blue").await, ["blue plums"]);
        index(&store).await;
    }
}

async fn only_what_one_may_read_is_found(backend: &impl Backend) {
    let store = backend.open().await;
    let [anna, bob, carl] = ["anna", "bob", "carl"];
    let (anna, bob) = (arrive(&store, anna).await, arrive(&store, bob).await);
    let carl = arrive(&store, carl).await;
    promote(&store, &carl).await;
    let room = private(&store, &anna, &bob).await;
    let books = make_group(&store, &anna, "books").await;
    let other = make_group(&store, &bob, "others").await;
    post(&store, &anna, room, "word between us").await;
    post(&store, &anna, books, "word of books").await;
    post(&store, &bob, other, "word of others").await;
    for is_indexed in [false, true] {
        let mine = ["word of books", "word between us"];
        assert_eq!(found(&store, &anna, "word").await, mine, "{is_indexed}");
        assert_eq!(
            found(&store, &bob, "word").await,
            ["word of others", "word between us"]
        );
        assert!(found(&store, &carl, "word").await.is_empty());
        for typed in ["word in:#others", "word in:nowhere", "word with:carl"] {
            let found = search(&store, &anna, typed).await;
            assert!(found.messages.is_empty() && found.unknown.is_some());
        }
        store.leave_group(anna.here(), books).await.unwrap();
        assert_eq!(found(&store, &anna, "word").await, ["word between us"]);
        enter_room(&store, &anna, Target::Room(books)).await;
        assert_eq!(found(&store, &anna, "word").await, mine);
        let restrict = |on| ModeratorAction::RestrictGroup { room: books, on };
        moderate(&store, &carl, restrict(true)).await;
        assert_eq!(found(&store, &anna, "word").await, ["word between us"]);
        assert_eq!(found(&store, &carl, "word").await, ["word of books"]);
        moderate(&store, &carl, restrict(false)).await;
        assert_eq!(found(&store, &anna, "word").await, mine);
        index(&store).await;
    }
    // A default group is in everybody's list, until they leave it.
    let hi = hi(&store).await;
    enter_room(&store, &anna, Target::Room(hi)).await;
    post(&store, &anna, hi, "word of hi").await;
    assert_eq!(found(&store, &bob, "word in:#hi").await, ["word of hi"]);
    store.leave_group(anna.here(), hi).await.unwrap();
    assert!(found(&store, &anna, "word in:#hi").await.is_empty());
    moderate(&store, &carl, ModeratorAction::RemoveGroup { room: books }).await;
    assert_eq!(found(&store, &anna, "word").await, ["word between us"]);
}

pub(crate) async fn older_results_reach_the_beginning(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let hi = hi(&store).await;
    let mut expected = Vec::new();
    for n in 0..25 {
        let text = if n % 3 == 0 { "no" } else { "yes" };
        let message = post(&store, &anna, hi, &format!("{text} {n}")).await;
        if n == 12 {
            index(&store).await;
        }
        if text == "yes" {
            expected.insert(0, message.id);
        }
    }
    // The index still has its former text.
    amend(&store, &anna, hi, expected.remove(14), Some("no"))
        .await
        .unwrap();
    for limit in [1, 2, 5, 16, 50] {
        let (mut ids, mut before): (Vec<MessageId>, _) = (Vec::new(), None);
        loop {
            let query = Query::of("yes");
            let page = store
                .search(anna.user.id, query, before, limit)
                .await
                .unwrap();
            assert!(page.messages.len() <= limit);
            ids.extend(page.messages.iter().map(|(message, _)| message.id));
            before = page.before;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(ids, expected, "{limit}");
    }
}

async fn in_many_groups_what_is_rare_there_is_found(backend: &impl Backend) {
    let store = backend.open().await;
    let [anna, bob] = ["anna", "bob"];
    let (anna, bob) = (arrive(&store, anna).await, arrive(&store, bob).await);
    let mut groups = Vec::new();
    for n in 0..20 {
        groups.push(make_group(&store, &anna, &format!("quiet{n}")).await);
    }
    let private = private(&store, &anna, &bob).await;
    let busy = make_group(&store, &bob, "busy").await;
    let mut expected = Vec::new();
    // In most of what is found, she may not read.
    for n in 0..1_300_usize {
        let room = match n {
            500 => private,
            _ if n % 100 == 0 => groups[n / 100],
            _ => busy,
        };
        let post = overwire::store::Post {
            by: if room == busy {
                bob.here()
            } else {
                anna.here()
            },
            room,
            text: MessageText::new(&format!("apples {n}"), 100)
                .unwrap()
                .into(),
            key: None,
            reply_to: None,
            files: Vec::new(),
        };
        store.post(post).await.unwrap();
        if room != busy {
            expected.insert(0, format!("apples {n}"));
        }
    }
    index(&store).await;
    assert_eq!(found(&store, &anna, "apples").await, expected);
    assert_eq!(found(&store, &anna, "apples from:me").await, expected);
    let dated = format!("after:{}", day(-2));
    assert_eq!(found(&store, &anna, &dated).await, expected);
    assert_eq!(found(&store, &anna, "\"apples 500\"").await, ["apples 500"]);
    assert!(found(&store, &anna, "\"apples 501\"").await.is_empty());
    let (mut texts, mut before) = (Vec::new(), None);
    loop {
        let page = store.search(anna.user.id, Query::of("app*"), before, 3);
        let page = page.await.unwrap();
        texts.extend(page.messages.into_iter().map(|(message, _)| message.text));
        before = page.before;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(texts, expected);
    // So many more are found elsewhere that each of her rooms is looked at by itself.
    let old = (0..2_300).map(|n| overwire::store::OldMessage {
        room: busy,
        author: bob.user.id,
        text: MessageText::new(&format!("more apples {n}"), 100)
            .unwrap()
            .into(),
        at: Millis::now(),
    });
    store.add_messages(old.collect()).await.unwrap();
    post(&store, &anna, groups[0], "applets").await;
    index(&store).await;
    for typed in ["apples", "apples*", "apples from:me"] {
        assert_eq!(found(&store, &anna, typed).await, expected, "{typed}");
    }
}

async fn messages_with_files_are_found(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let hi = hi(&store).await;
    post(&store, &anna, hi, "a picture, but not here").await;
    let file = picture("large");
    let added = store.add_file(anna.user.id, hi, file.clone());
    assert!(added.await.unwrap());
    let with_file = overwire::store::Post {
        by: anna.here(),
        room: hi,
        text: MessageText::new("a picture", 100).unwrap().into(),
        key: None,
        reply_to: None,
        files: vec![file.file.id],
    };
    store.post(with_file).await.unwrap();
    for _ in 0..2 {
        for typed in ["has:file", "has:FILES picture"] {
            assert_eq!(found(&store, &anna, typed).await, ["a picture"], "{typed}");
        }
        assert!(found(&store, &anna, "has:file not").await.is_empty());
        index(&store).await;
    }
}

async fn long_messages_are_indexed_few_at_a_time(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let hi = hi(&store).await;
    for n in 0..16 {
        post(
            &store,
            &anna,
            hi,
            &format!("apples {n} {}", "long ".repeat(790)),
        )
        .await;
    }
    let mut parts = 0;
    while let Some(next) = store.unindexed(hi).await.unwrap() {
        store.index(next).await.unwrap();
        parts += 1;
    }
    assert_eq!(parts, 2, "32 KiB of text at a time");
    assert_eq!(found(&store, &anna, "apples").await.len(), 16);
}

async fn what_was_there_before_the_index_is_indexed_in_parts(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let hi = hi(&store).await;
    let old = post(&store, &anna, hi, "old words").await;
    let post_of = |n: usize| overwire::store::Post {
        by: anna.here(),
        room: hi,
        text: MessageText::new(&format!("filler {n}"), 100)
            .unwrap()
            .into(),
        key: None,
        reply_to: None,
        files: Vec::new(),
    };
    let posts = (0..1_100).map(|n| store.post(post_of(n)));
    for posted in futures_util::future::join_all(posts).await {
        posted.unwrap();
    }
    let rooms = store.begin_indexing().await.unwrap();
    assert!(!rooms.contains(&hi));
    post(&store, &anna, hi, "new words").await;
    let page = search(&store, &anna, "words").await;
    assert_eq!(page.messages.len(), 1);
    assert!(page.incomplete);
    amend(&store, &anna, hi, old.id, Some("old edited words"))
        .await
        .unwrap();
    let both = ["new words", "old edited words"];
    assert_eq!(found(&store, &anna, "words").await, both);
    let mut parts = 0;
    while let Some(part) = store.unindexed_before().await.unwrap() {
        store.index(part).await.unwrap();
        parts += 1;
        assert_eq!(found(&store, &anna, "words").await, both);
    }
    assert!(parts > 3);
    let page = search(&store, &anna, "filler").await;
    assert!(page.messages.len() == 50 && !page.incomplete);
    assert_eq!(found(&store, &anna, "\"filler 7\"").await, ["filler 7"]);
    index(&store).await;
    assert_eq!(found(&store, &anna, "words").await, both);
    // More has changed since this edit than is compared one by one.
    let plums = amend(&store, &anna, hi, old.id, Some("plums")).await;
    plums.unwrap();
    let posts = (0..1_100).map(|n| store.post(post_of(n)));
    for posted in futures_util::future::join_all(posts).await {
        posted.unwrap();
    }
    assert_eq!(found(&store, &anna, "words").await, ["new words"]);
    index(&store).await;
    assert_eq!(found(&store, &anna, "plums").await, ["plums"]);
}

async fn what_an_earlier_build_indexed_is_indexed_again<B: Backend>(backend: &B) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let hi = hi(&store).await;
    post(&store, &anna, hi, "red apples").await;
    index(&store).await;
    // Its index has less than this build looks for.
    backend.run("delete from message_words;").await;
    assert!(found(&store, &anna, "appl*").await.is_empty());
    backend.run(B::REINDEXING).await;
    assert!(search(&store, &anna, "appl*").await.incomplete);
    index(&store).await;
    for typed in ["appl*", "\"red apples\""] {
        assert_eq!(found(&store, &anna, typed).await, ["red apples"], "{typed}");
    }
}

async fn of_two_that_index_the_same_one_does(backend: &impl Backend) {
    let store = backend.open().await;
    let anna = arrive(&store, "anna").await;
    let hi = hi(&store).await;
    let first = post(&store, &anna, hi, "red apples").await;
    let (one, other) = (
        store.unindexed(hi).await.unwrap(),
        store.unindexed(hi).await.unwrap(),
    );
    amend(&store, &anna, hi, first.id, Some("green apples"))
        .await
        .unwrap();
    store.index(one.unwrap()).await.unwrap();
    assert_eq!(found(&store, &anna, "green").await, ["green apples"]);
    index(&store).await;
    store.index(other.unwrap()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(found(&store, &anna, "green").await, ["green apples"]);
        assert!(found(&store, &anna, "red").await.is_empty());
        index(&store).await;
    }
}
