//! Web Push: what reaches the browsers of people who look at no tab, by way of their push services.

use overwire::model::{Millis, PushSubscription};
use overwire::push::{self, Delivery, PADDED, Pusher, Settings};
use serde_json::{Value, json};

use crate::support::device::Device;
use crate::support::push::{Browser, PushService, VALID};
use crate::support::{Server, Tab, until};

/// A registered person whose browser has subscribed.
async fn subscriber(server: &Server, endpoint: &str) -> (Device, Tab, Browser) {
    let (device, mut tab) = Device::of_somebody(server).await;
    let browser = Browser::new();
    tab.sends("Set notifications", json!({ "on": true }));
    tab.until("the server's key", |tab| {
        let settings = tab.page.the("notifications").with("data-key").next();
        settings.is_some_and(|settings| settings.attribute("data-key").unwrap().len() == 87)
    })
    .await;
    tab.sends("Subscribe", browser.subscribes(endpoint));
    tab.hears_all().await;
    (device, tab, browser)
}

#[tokio::test]
async fn a_message_reaches_somebody_who_has_no_tab_open() {
    let server = Server::start().await;
    let mut service = PushService::start().await;
    let endpoint = format!("{}/of/bob", service.origin);
    let (device, bob, browser) = subscriber(&server, &endpoint).await;
    let name = bob.name();
    bob.closes().await;
    server.has_noticed_leaving(&[&name]).await;
    let mut anna = server.tab().await;
    anna.opens_private(&name).await;
    anna.says("“hello” <there>\nsecond line").await;
    let id = anna.messages().last().unwrap().id;
    let request = service.gets().await;
    let text = browser.opens(&request);
    let text: Value = serde_json::from_slice(&text).unwrap();
    let expected = json!({
        "tag": id.to_string(),
        "title": anna.name(),
        "body": "“hello” <there>",
        "address": format!("/chat/@{}/?at={id}", anna.name()),
    });
    assert_eq!(text, expected);
    assert_eq!(request.path, "/of/bob");
    for (header, value) in [
        ("content-encoding", "aes128gcm"),
        ("ttl", "86400"),
        ("urgency", "high"),
    ] {
        assert_eq!(request.header(header), value);
    }
    let (claims, key) = request.signed();
    assert_eq!(claims["aud"], json!(service.origin));
    assert_eq!(claims["sub"], json!("mailto:admin@example.org"));
    let valid = claims["exp"].as_i64().unwrap() * 1000 - Millis::now().0;
    assert!(VALID.contains(&std::time::Duration::from_millis(valid.unsigned_abs())));

    // However long the text is, the push service sees the same size, and which messages belong to one
    // conversation, but not which.
    anna.says(&"long ".repeat(500)).await;
    let longer = service.gets().await;
    assert_eq!(longer.body.len(), request.body.len());
    assert!(request.body.len() <= 4096);
    let text: Value = serde_json::from_slice(&browser.opens(&longer)).unwrap();
    assert_eq!(text["body"].as_str().unwrap().len(), 160);
    assert_eq!(longer.header("topic"), request.header("topic"));
    let bytes = String::from_utf8_lossy(&longer.body).into_owned();
    assert!(!bytes.contains("long") && !bytes.contains(&anna.name()));
    assert_eq!(longer.signed().1, key);

    // In view, or when not to be disturbed, nothing is sent.
    let mut bob = device.tab("/chat/hi/").await;
    bob.sends("Set notifications", json!({ "quiet": 30 }));
    bob.until("quiet", |tab| {
        tab.page.the("notifications").text().contains("Until 20")
    })
    .await;
    anna.says("quietly").await;
    bob.until("the unread mark", |tab| tab.unread_from(&anna.name()) == 3)
        .await;
    // People are notified in the order of the messages: once Carol is, Bob will not be.
    let (_, carol, _) = subscriber(&server, &format!("{}/of/carol", service.origin)).await;
    let carol_name = carol.name();
    carol.closes().await;
    server.has_noticed_leaving(&[&carol_name]).await;
    anna.opens_private(&carol_name).await;
    anna.says("to Carol").await;
    assert_eq!(service.gets().await.path, "/of/carol");
    anna.opens_private(&bob.name()).await;
    bob.sends("Set notifications", json!({ "quiet": 0 }));
    bob.until("the end of that", |tab| {
        !tab.page.the("notifications").text().contains("Until 20")
    })
    .await;
    anna.says("loudly").await;
    let request = service.gets().await;
    let text: Value = serde_json::from_slice(&browser.opens(&request)).unwrap();
    assert_eq!(text["body"], json!("loudly"));

    // Whoever signs out in the browser is not notified there any more.
    let mut device = device;
    device.sends("/sign-out/", &[]).await;
    let left = "select u.name from push_subscriptions p join users u on u.id = p.user_id";
    assert_eq!(server.look(left), [carol_name]);
    assert!(!service.has_more());
}

#[tokio::test]
async fn a_browser_belongs_to_whoever_is_signed_in_there() {
    let server = Server::start().await;
    let service = PushService::start().await;
    let endpoint = format!("{}/shared", service.origin);
    let (_, _first, _) = subscriber(&server, &endpoint).await;
    let (_, mut second, browser) = subscriber(&server, &endpoint).await;
    let owner =
        server.look("select u.name from push_subscriptions p join users u on u.id = p.user_id");
    assert_eq!(owner, [second.name()]);
    // A guest is notified only while their tab is open.
    let mut guest = server.tab().await;
    guest.sends("Set notifications", json!({ "on": true }));
    guest.sends(
        "Subscribe",
        browser.subscribes(&format!("{endpoint}/guest")),
    );
    guest.hears_all().await;
    assert!(
        guest
            .page
            .the("notifications")
            .with("data-key")
            .next()
            .is_none()
    );
    assert_eq!(server.count("push_subscriptions"), 1);
    for wrong in [
        json!({ "endpoint": "ftp://x/", "p256dh": "", "auth": "" }),
        json!({ "endpoint": "https://x/", "p256dh": "BA", "auth": "BA" }),
    ] {
        let words = second.is_refused("Subscribe", wrong).await;
        assert_eq!(words, "This is not a subscription of a browser.");
    }
    let long = format!(
        "{endpoint}/{}",
        "x".repeat(PushSubscription::ENDPOINT_BYTES)
    );
    second
        .is_refused("Subscribe", browser.subscribes(&long))
        .await;
    second.sends("Set notifications", json!({ "on": false }));
    second.until("that", |tab| !tab.is_told()).await;
    assert_eq!(server.count("push_subscriptions"), 0);
}

#[tokio::test]
async fn a_browser_that_takes_no_more_is_forgotten() {
    let server = Server::start().await;
    let mut service = PushService::start().await;
    let (_device, bob, browser) = subscriber(&server, &service.origin).await;
    let mut anna = server.tab().await;
    anna.opens_private(&bob.name()).await;
    // A push service that does not answer holds nobody up, and one that is busy is asked again.
    service.answers([
        None,
        Some((429, Some("0"))),
        Some((201, None)),
        Some((410, None)),
    ]);
    anna.says("into the void").await;
    service.gets().await;
    anna.says("again").await;
    for _ in 0..2 {
        let request = service.gets().await;
        let text: Value = serde_json::from_slice(&browser.opens(&request)).unwrap();
        assert_eq!(text["body"], json!("again"));
    }
    anna.says("gone").await;
    service.gets().await;
    until("the browser to be forgotten", async || {
        server.count("push_subscriptions") == 0
    })
    .await;
}

/// A pusher that may use push services in these networks, and what becomes of a text.
async fn delivered(networks: &[&str], endpoint: &str) -> Delivery {
    let networks = networks.iter().map(|network| network.parse().unwrap());
    let settings = Settings {
        networks: networks.collect(),
        ..Settings::default()
    };
    let pusher = Pusher::new(&push::new_key().unwrap(), settings).unwrap();
    let to = Browser::new().subscription(endpoint);
    pusher.deliver(&to, b"hello", "topic").await
}

#[tokio::test]
async fn no_address_inside_the_own_network_is_asked() {
    let mut service = PushService::start().await;
    let port = service.origin.rsplit_once(':').unwrap().1.to_owned();
    for network in [&[][..], &["10.0.0.0/8"]] {
        for host in [
            "127.0.0.1",
            "localhost",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
            "[::1]",
        ] {
            for scheme in ["http", "https"] {
                let endpoint = format!("{scheme}://{host}:{port}/");
                assert_eq!(
                    delivered(network, &endpoint).await,
                    Delivery::Failed,
                    "{endpoint}"
                );
            }
        }
    }
    assert!(!service.has_more());
    let own = ["127.0.0.0/8"];
    assert_eq!(delivered(&own, &service.origin).await, Delivery::Delivered);
    service.gets().await;
    // It leads elsewhere.
    service.answers([Some((307, Some("/elsewhere")))]);
    assert_eq!(delivered(&own, &service.origin).await, Delivery::Failed);
    service.gets().await;
    assert!(!service.has_more());
}

#[tokio::test]
async fn a_push_service_is_not_asked_for_ever() {
    let service = PushService::start().await;
    let own = ["127.0.0.0/8"];
    let busy = || Some((503, Some("0")));
    for (answers, expected) in [
        (vec![busy(), busy(), busy()], Delivery::Failed),
        (vec![busy(), busy(), Some((202, None))], Delivery::Delivered),
        (vec![Some((429, Some("86400")))], Delivery::Failed),
        (vec![Some((413, None))], Delivery::Failed),
        (vec![Some((404, None))], Delivery::Gone),
    ] {
        service.answers(answers);
        assert_eq!(delivered(&own, &service.origin).await, expected);
    }
}

#[tokio::test]
async fn a_push_service_that_does_not_answer_gets_few_requests_at_once() {
    let mut service = PushService::start().await;
    service.answers(vec![None; 4]);
    let settings = Settings {
        networks: vec!["127.0.0.0/8".parse().unwrap()],
        ..Settings::default()
    };
    let pusher = Pusher::new(&push::new_key().unwrap(), settings).unwrap();
    let to = Browser::new().subscription(&service.origin);
    let other = Browser::new().subscription(&format!("{}/other", service.origin));
    let waiting = (0..4).map(|_| pusher.deliver(&to, b"1", ""));
    let waiting = futures_util::future::join_all(waiting);
    let asking = async {
        for _ in 0..4 {
            service.gets().await;
        }
        assert_eq!(pusher.deliver(&to, b"2", "").await, Delivery::Dropped);
        assert_eq!(pusher.deliver(&other, b"3", "").await, Delivery::Delivered);
    };
    tokio::select! {
        _ = waiting => panic!("nobody has answered"),
        () = asking => {}
    }
    let long = vec![b'x'; PADDED + 1];
    assert_eq!(pusher.deliver(&other, &long, "").await, Delivery::Failed);
}
