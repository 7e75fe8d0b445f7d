//! Threads that serve connections, each with a runtime of its own. A request
//! that is worked on where it is received then wakes no other thread; on a
//! runtime of many threads every one of them also wakes a second one, which
//! looks for work and finds none.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How long the end of a thread waits for work that its connections left to
/// threads for blocking calls.
const LINGER: Duration = Duration::from_secs(1);

/// The threads `net-0`, `net-1`, … Their connections end with them, so they
/// are stopped after everything that serves.
pub struct NetThreads {
    net: Net,
    /// A thread ends when its own is dropped.
    running: Vec<oneshot::Sender<()>>,
    /// Closed when all threads have ended.
    ended: mpsc::Receiver<()>,
}

impl NetThreads {
    /// Starts them.
    ///
    /// # Errors
    /// The system refuses a thread or what a runtime needs.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut places = Vec::new();
        let mut running = Vec::new();
        let (alive, ended) = mpsc::channel::<()>();
        for number in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            places.push(Place { runtime: runtime.handle().clone(), open: AtomicUsize::new(0) });
            let (stop, stopped) = oneshot::channel::<()>();
            let alive = alive.clone();
            std::thread::Builder::new().name(format!("net-{number}")).spawn(move || {
                let _alive = alive;
                // An error: the sender was dropped.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_timeout(LINGER);
            })?;
            running.push(stop);
        }
        Ok(Self { net: Net(Some(places.into())), running, ended })
    }

    /// For those who serve.
    pub fn net(&self) -> Net {
        self.net.clone()
    }

    /// Ends the threads and waits for them, twice the time that they give to
    /// blocking calls: one that hangs in a call does not hold up an exit.
    pub fn stop(self) {
        drop(self.running);
        // Nothing is ever sent: either all have ended, or the time has.
        let _ = self.ended.recv_timeout(2 * LINGER);
    }
}

/// Where connections are served: on the threads of [`NetThreads`], or, by
/// default, on the runtime that accepts them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Net(Option<Arc<[Place]>>);

struct Place {
    runtime: Handle,
    /// Connections served here.
    open: AtomicUsize,
}

impl Net {
    /// Starts serving a connection where the fewest are.
    pub(crate) fn spawn(
        &self,
        connections: &mut JoinSet<()>,
        serve: impl Future<Output = ()> + Send + 'static,
    ) {
        let places = self.0.as_deref().unwrap_or_default();
        let fewest = (0..places.len()).min_by_key(|i| places[*i].open.load(Relaxed));
        let (Some(all), Some(index)) = (self.0.clone(), fewest) else {
            connections.spawn(serve);
            return;
        };
        let seat = Seat::take(Arc::clone(&all), index);
        let serve = async move {
            let _seat = seat;
            serve.await;
        };
        connections.spawn_on(serve, &all[index].runtime);
    }
}

/// A connection's place, given back when it ends.
struct Seat {
    all: Arc<[Place]>,
    index: usize,
}

impl Seat {
    fn take(all: Arc<[Place]>, index: usize) -> Self {
        all[index].open.fetch_add(1, Relaxed);
        Self { all, index }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.all[self.index].open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_where_the_fewest_are() {
        let threads = NetThreads::start(2).unwrap();
        let mut connections = JoinSet::new();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut ends = Vec::new();
        let mut begin = |connections: &mut JoinSet<()>| {
            let (end, ended) = oneshot::channel::<()>();
            ends.push(end);
            let tell = tell.clone();
            threads.net().spawn(connections, async move {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                tell.send(name).unwrap();
                drop(ended.await);
            });
        };
        for _ in 0..4 {
            begin(&mut connections);
        }
        let mut names = Vec::new();
        for _ in 0..4 {
            names.push(told.recv().await.unwrap());
        }
        names.sort();
        assert_eq!(names, ["net-0", "net-0", "net-1", "net-1"]);
        ends.clear();
        while connections.join_next().await.is_some() {}
        tokio::task::spawn_blocking(|| threads.stop()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_and_the_end_of_a_thread_end_connections_alone() {
        let threads = NetThreads::start(1).unwrap();
        let net = threads.net();
        let mut connections = JoinSet::new();
        net.spawn(&mut connections, async { panic!("one connection") });
        assert!(connections.join_next().await.unwrap().unwrap_err().is_panic());
        net.spawn(&mut connections, std::future::pending());
        tokio::task::spawn_blocking(|| threads.stop()).await.unwrap();
        assert!(connections.join_next().await.unwrap().unwrap_err().is_cancelled());
        net.spawn(&mut connections, std::future::pending());
        assert!(connections.join_next().await.unwrap().unwrap_err().is_cancelled());
    }
}
