//! Clients that stop reading, half-open sockets, and rubbish: people at other tabs notice none of
//! it.

use std::time::Duration;

use serde_json::json;

use crate::support::{Server, tab::all};

#[tokio::test]
async fn a_reader_that_stops_reading_is_dropped_without_delaying_others() {
    let server = Server::with(|setup| {
        setup.unlimited();
        setup.socket.drain_within = Duration::from_millis(500);
    })
    .await;
    let mut anna = server.tab().await;
    let mut bob = server.tab().await;
    let mut deaf = server.tab().await;
    deaf.stops_reading().await;
    // More than the system and the outbox hold.
    let text = "x".repeat(3900);
    let name = deaf.name();
    let mut last = String::new();
    for number in 0..250 {
        last = format!("{number} {text}");
        anna.says(&last).await;
    }
    bob.sees(&last).await;
    server.has_noticed_leaving(&[name]).await;
    anna.says("after").await;
    bob.sees("after").await;
    // A client that does not read cannot be told, but what it gets ends cleanly.
    deaf.goes_deaf(false);
    deaf.is_closed().await;
    deaf.connects().await;
    deaf.sees("after").await;
}

#[tokio::test]
async fn a_half_open_socket_is_dropped_in_time_and_a_quiet_one_stays() {
    let server = Server::with(|setup| {
        // In the usual proportion, so that an answer has half of the time.
        setup.socket.ping_after = Duration::from_millis(1200);
        setup.socket.drop_after = Duration::from_millis(2400);
    })
    .await;
    let mut quiet = server.tab().await;
    let silent = server.tab().await;
    silent.goes_deaf(true);
    server.has_noticed_leaving(&[silent.name()]).await;
    // This tab has had many deadlines too, but it answered.
    assert!(server.people_here().contains(&quiet.name()));
    quiet.says("still here").await;
}

#[tokio::test]
async fn countless_read_marks_do_not_hold_others_up() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let mut noisy = server.tab().await;
    for _ in 0..20_000 {
        let room = overwire::model::RoomId::random().to_string();
        noisy.sends("Read", json!({ "message": 1, "room": room }));
    }
    noisy.sends("Ping", json!({}));
    // The read marks are written before the server stops.
    anna.says("still here").await;
    noisy
        .until("its answer", |tab| {
            !tab.pushes_to("connection", 0).is_empty()
        })
        .await;
    anna.says("and here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_at_full_speed_does_not_hold_others_up() {
    let server = Server::start().await;
    let mut anna = server.tab().await;
    let mut bob = server.tab().await;
    let mut noisy = server.tab().await;
    for number in 0..3_000 {
        match number % 5 {
            0 => noisy.wire().binary(vec![0xff; 100]),
            1 => noisy.wire().text("{\"action\":"),
            2 => noisy.sends("New message", json!({ "message": "" })),
            3 => noisy.sends("Change group", json!({ "groupName": 7 })),
            _ => noisy.sends("\u{0}", json!(null)),
        }
    }
    for number in 0..20 {
        let text = format!("{number}");
        anna.says(&text).await;
        bob.sees(&text).await;
    }
    noisy.gets_notice_since(0).await;
    all([&mut anna, &mut bob].map(|tab| tab.hears_all())).await;
    assert_eq!(
        (anna.notice(), bob.notice()),
        (String::new(), String::new())
    );
    assert!(!noisy.notice().is_empty());
}
