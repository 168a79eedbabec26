//! The same work on many things, on all cores.

use std::sync::Mutex;

use anyhow::Result;

/// Does it with each, in no particular order; the first failure ends it.
pub fn each<T: Send, R: Send>(
    things: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let queue = Mutex::new(things.into_iter());
    let next = || queue.lock().expect("no worker panics").next();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let run = || {
            let mut done = Vec::new();
            while let Some(thing) = next() {
                done.push(work(thing)?);
            }
            Ok(done)
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        let mut all = Vec::new();
        for worker in workers {
            let done: Result<Vec<R>> = worker.join().expect("no worker panics");
            all.extend(done?);
        }
        Ok(all)
    })
}
