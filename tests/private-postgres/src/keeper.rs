//! A thread that starts processes and lives as long as we do: a process that asks to be told of its parent's death is
//! told when the *thread* that started it ends, and the threads of tests end early.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

type Order = (Command, SyncSender<io::Result<Child>>);

/// Starts a process from the thread.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, taken) = sync_channel::<Order>(1);
        std::thread::spawn(move || {
            while let Ok((mut command, answer)) = taken.recv() {
                // Whoever ordered waits for it.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, answered) = sync_channel(1);
    keeper
        .send((command, answer))
        .expect("invariant: the keeper lives");
    answered.recv().expect("invariant: the keeper answers")
}
