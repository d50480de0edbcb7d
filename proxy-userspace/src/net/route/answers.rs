//! Routes looked up beside the control loop, in batches.

use std::{io, time::Duration};

use tokio::sync::mpsc;

use super::{Query, Route, Routes};

/// What the kernel said to each question of a batch; an error means that it did not answer in time.
pub type Answers = Vec<(Query, io::Result<Option<Route>>)>;

/// Between two batches: however many destinations there are, they are asked for at a rate that hurts nobody.
const PAUSE: Duration = Duration::from_millis(5);

/// A handle on the task that asks.
#[derive(Debug)]
pub struct Lookups {
    is_idle: bool,
    questions: mpsc::Sender<Vec<Query>>,
    answers: mpsc::Receiver<Answers>,
}

impl Lookups {
    /// Starts the task.
    pub fn start(routes: Routes) -> Self {
        let (questions, mut batches) = mpsc::channel::<Vec<Query>>(1);
        let (sender, answers) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                let mut answers = Vec::with_capacity(batch.len());
                for query in batch {
                    answers.push((query, routes.find(query).await));
                }
                if sender.send(answers).await.is_err() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { is_idle: true, questions, answers }
    }

    /// Whether no batch is being worked on.
    pub fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Asks; false if a batch is being worked on.
    pub fn ask(&mut self, batch: Vec<Query>) -> bool {
        let asked = self.is_idle && self.questions.try_send(batch).is_ok();
        self.is_idle &= !asked;
        asked
    }

    /// The next answers; dropping the future loses none.
    pub async fn next(&mut self) -> Option<Answers> {
        let answers = self.answers.recv().await;
        self.is_idle = true;
        answers
    }
}
