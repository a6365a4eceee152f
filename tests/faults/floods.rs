//! Clients that send, connect or inflate far too much, or far too slowly, while people write.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep};

use overwire::protocol::Dialect;

use crate::support::list::List;
use crate::support::tab::all;
use crate::support::wire::{Event, Handshake, Wire};
use crate::support::{Crowd, Door, Program, long, soon, until};

/// How many messages are stored before, during and after.
const MESSAGES: usize = 100;
/// Where floods come from. The crowd has another address.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A server with limits on a file, and people who write within them.
struct Scene {
    _folder: TempDir,
    file: PathBuf,
    program: Program,
    crowd: Crowd,
}

impl Scene {
    async fn start() -> Self {
        // Each socket is a file here too.
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("overwire.db");
        let mut program = Program::start(&file, &["--pace-per-second", "40"]).await;
        program.loses_its_log();
        let mut crowd = Crowd::of(6, &[program.door], &[]);
        crowd.goes_on(MESSAGES).await;
        Self {
            _folder: folder,
            file,
            program,
            crowd,
        }
    }

    /// All is well again.
    async fn ends(mut self) {
        self.crowd.goes_on(MESSAGES).await;
        self.crowd.ends_as_stored_in(&self.file).await;
    }

    /// The most memory that the server has used so far, in KiB.
    fn memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.program.process());
        let status = fs::read_to_string(status).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.unwrap().trim().trim_end_matches(" kB");
        peak.parse().unwrap()
    }
}

async fn connects_from_elsewhere(door: Door) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ELSEWHERE, 0).into()).unwrap();
    socket.connect(door.0).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_takes_ten_thousand_actions_a_second() {
    let mut scene = Scene::start().await;
    let mut noisy = scene.program.socket(&Handshake::default()).await.unwrap();
    let mut tenths = interval(Duration::from_millis(100));
    for _ in 0..long(20, 100) {
        tenths.tick().await;
        for number in 0..1_000 {
            let (action, data) = match number % 4 {
                0 => ("New message", json!({ "message": "noise" })),
                1 => (
                    "Change group",
                    json!({ "groupName": "hi", "isGroup": true }),
                ),
                2 => ("Change name", json!({ "name": number.to_string() })),
                _ => ("New message", json!({ "message": "" })),
            };
            noisy.text(json!({ "action": action, "data": data }).to_string());
        }
    }
    scene.crowd.goes_on(MESSAGES).await;
    noisy.close();
    let mut refused = 0;
    while let Event::Text(push) = soon("its refusals", noisy.next()).await {
        refused += usize::from(push.contains("#notice"));
    }
    println!("{refused} actions were refused");
    assert!(refused > 0);
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_opens_two_thousand_sockets() {
    let mut scene = Scene::start().await;
    let address = scene.program.door.0;
    let handshake = Handshake {
        query: "?at=/chat/python/".to_owned(),
        from: Some(ELSEWHERE),
        ..Handshake::default()
    };
    let opens = |_| Wire::attempt(address, &handshake);
    let opened: Vec<_> = stream::iter(0..2_000)
        .map(opens)
        .buffered(50)
        .collect()
        .await;
    scene.crowd.goes_on(MESSAGES).await;
    let mut admitted = Vec::new();
    for mut wire in opened.into_iter().flatten() {
        if is_admitted(&mut wire).await {
            admitted.push(wire);
        }
    }
    assert_eq!(admitted.len(), 500);
    sleep(long(Duration::ZERO, Duration::from_secs(20))).await;
    drop(admitted);
    until(
        "that address to be let in again",
        async || match Wire::attempt(address, &handshake).await {
            Ok(mut wire) => is_admitted(&mut wire).await,
            Err(_) => false,
        },
    )
    .await;
    scene.ends().await;
}

/// Whether a socket is shown a room before it is closed.
async fn is_admitted(wire: &mut Wire) -> bool {
    soon("an answer", async {
        loop {
            match wire.next().await {
                Event::Text(push) if push.contains("#messages-list") => return true,
                Event::Closed(_) => return false,
                _ => {}
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_arrive_a_byte_at_a_time() {
    let mut scene = Scene::start().await;
    let door = scene.program.door;
    let slow = (0..long(200, 1_000)).map(|_| async move {
        let mut stream = connects_from_elsewhere(door).await;
        let began = Instant::now();
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut head = b"GET /chat/hi/ HTTP/1.1\r\nHost: localhost\r\n".iter();
        let mut answer = [0; 1024];
        loop {
            tokio::select! {
                _ = seconds.tick() => {
                    let _ = stream.write_all(&[*head.next().unwrap()]).await;
                }
                read = stream.read(&mut answer) => if !read.is_ok_and(|read| read > 0) {
                    return began.elapsed();
                },
            }
        }
    });
    let slow = tokio::spawn(all(slow.collect::<Vec<_>>()));
    scene.crowd.goes_on(MESSAGES).await;
    let slowest = slow.await.unwrap().into_iter().max().unwrap();
    assert!(
        slowest < Duration::from_secs(15),
        "the last one ended after {slowest:?}"
    );
    scene.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_are_frozen_among_busy_ones() {
    let mut scene = Scene::start().await;
    let door = scene.program.door;
    let mut frozen = Vec::new();
    for _ in 0..long(10, 100) {
        let mut list = List::new(Dialect::V1);
        let handshake = Handshake {
            receive_buffer: Some(4_096),
            ..list.socket_handshake()
        };
        let mut wire = door.socket(&handshake).await.unwrap();
        while list.room.is_none() {
            reads(&mut list, &mut wire).await;
        }
        wire.deaf(true);
        frozen.push((list, wire));
    }
    for _ in 0..long(1, 15) {
        scene.crowd.goes_on(1_000).await;
    }
    for (_, wire) in &frozen {
        wire.deaf(false);
    }
    let record = scene.crowd.ends_as_stored_in(&scene.file).await;
    for (list, wire) in &mut frozen {
        while !record.is_shown_by(list) {
            if !reads(list, wire).await {
                *wire = door.socket(&list.socket_handshake()).await.unwrap();
            }
        }
    }
}

/// Takes what comes next. Returns whether there was something.
async fn reads(list: &mut List, wire: &mut Wire) -> bool {
    match soon("a push", wire.next()).await {
        Event::Text(push) => list.take(&push),
        Event::Closed(_) => return false,
        Event::Other(other) => panic!("{other}"),
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_messages_inflate_to_a_thousand_times_their_size() {
    let mut scene = Scene::start().await;
    let door = scene.program.door;
    let mut bomb = DeflateEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b' '; 60_000_000]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 65_536, "it is as large as a frame may be");
    // A masked text frame with the compression bit. The mask is zero.
    let mut frame = vec![0xc1, 0xfe];
    frame.extend(u16::try_from(bomb.len()).unwrap().to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(bomb);
    let before = scene.memory();
    let throws = (0..long(50, 400)).map(|_| async {
        let mut stream = connects_from_elsewhere(door).await;
        let request = format!(
            "GET /ws/chat/ HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
             Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            door.0
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(&frame).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let closed = 1009_u16.to_be_bytes();
        assert!(answer.windows(2).any(|bytes| bytes == closed), "too big");
    });
    all(throws).await;
    let grown = scene.memory() - before;
    println!("the server's memory grew by at most {grown} KiB");
    assert!(grown < 60_000, "{grown} KiB");
    scene.crowd.goes_on(MESSAGES).await;
    scene.ends().await;
}
