//! `kill -9` while many write, again and again.

use crate::support::{Crowd, Program, long};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_killed_again_and_again_while_people_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("overwire.db");
    let mut program = Program::start(&file, &["--unlimited"]).await;
    let listen = program.door.0.to_string();
    let mut crowd = Crowd::in_a_hurry(8, &[program.door]);
    for _ in 0..long(4, 20) {
        crowd.goes_on(400).await;
        program.dies().await;
        program = Program::start(&file, &["--unlimited", "--listen", &listen]).await;
    }
    crowd.goes_on(400).await;
    crowd.ends_as_stored_in(&file).await;
}
