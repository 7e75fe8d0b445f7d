//! Named long-lived tasks: started, watched, restarted when they fail.

use crate::drain::{Phase, StopWatch};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// What a task is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskState {
    /// It runs.
    Running,
    /// It failed and waits to be started again.
    Restarting(String),
    /// It has ended.
    Ended,
}

/// A task and its state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskHealth {
    /// Name.
    pub name: String,
    /// State.
    pub state: TaskState,
    /// Times it was started again.
    pub restarts: u64,
}

/// Runs named tasks until the shutdown. A task that fails is started again
/// after a pause that doubles from 100 ms to 10 s.
pub struct Supervisor {
    stop: StopWatch,
    tasks: JoinSet<()>,
    health: Arc<Mutex<Vec<TaskHealth>>>,
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new(stop: StopWatch) -> Self {
        Self { stop, tasks: JoinSet::new(), health: Arc::default() }
    }

    /// Starts a task; `make` builds it for each start. It should end by itself
    /// once draining begins; `Err` makes it start again.
    pub fn start<F, Fut>(&mut self, name: &str, mut make: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let index = {
            let mut health = lock(&self.health);
            health.push(TaskHealth { name: name.into(), state: TaskState::Running, restarts: 0 });
            health.len() - 1
        };
        let health = Arc::clone(&self.health);
        let (name, mut stop) = (name.to_owned(), self.stop.clone());
        self.tasks.spawn(async move {
            let mut pause = Duration::from_millis(100);
            loop {
                // In a task of its own, so that a panic is a failure too.
                let mut set = JoinSet::new();
                set.spawn(make());
                let result = match set.join_next().await {
                    Some(Ok(result)) => result,
                    Some(Err(panic)) => Err(panic.to_string()),
                    None => Ok(()),
                };
                let Err(error) = result else { break };
                if stop.phase() != Phase::Running {
                    break;
                }
                tracing::error!(task = %name, %error, "task failed; starting it again");
                set_state(&health, index, TaskState::Restarting(error), 1);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.reached(Phase::Draining) => break,
                }
                pause = (pause * 2).min(Duration::from_secs(10));
                set_state(&health, index, TaskState::Running, 0);
            }
            set_state(&health, index, TaskState::Ended, 0);
        });
    }

    /// All tasks.
    pub fn health(&self) -> Vec<TaskHealth> {
        lock(&self.health).clone()
    }

    /// Waits until all tasks have ended, up to `grace`; then ends them.
    /// Returns the names of those that did not end by themselves.
    pub async fn join(&mut self, grace: Duration) -> Vec<String> {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_ok() {
            return Vec::new();
        }
        self.tasks.shutdown().await;
        self.health().into_iter().filter(|t| t.state != TaskState::Ended).map(|t| t.name).collect()
    }
}

fn lock(health: &Mutex<Vec<TaskHealth>>) -> std::sync::MutexGuard<'_, Vec<TaskHealth>> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set_state(health: &Mutex<Vec<TaskHealth>>, index: usize, state: TaskState, restarts: u64) {
    if let Some(task) = lock(health).get_mut(index) {
        task.state = state;
        task.restarts += restarts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stop;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_task_that_fails_or_panics_is_started_again() {
        let stop = Stop::default();
        let mut supervisor = Supervisor::new(stop.watch());
        let runs = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&runs);
        supervisor.start("flaky", move || {
            let run = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => Err("no luck".into()),
                    1 => panic!("worse"),
                    _ => Ok(()),
                }
            }
        });
        assert!(supervisor.join(Duration::from_secs(30)).await.is_empty());
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(supervisor.health()[0].restarts, 2);
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_ended_and_named() {
        let stop = Stop::default();
        let mut supervisor = Supervisor::new(stop.watch());
        supervisor.start("stubborn", std::future::pending);
        stop.request();
        assert_eq!(supervisor.join(Duration::from_millis(5)).await, ["stubborn"]);
    }
}
