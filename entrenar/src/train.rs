//! The façade of the page: a training loop with callbacks, one of which watches the GPUs.
//!
//! The trainer walks over epochs and batches and asks its callbacks whether to go on. It computes no gradients and
//! moves no data: a step of the model is the caller's own code.

pub mod callback;

use std::error::Error;

use self::callback::{CallbackAction, CallbackContext, TrainerCallback};
use crate::clock;

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainerConfig {
    /// How many times to walk over the dataset.
    pub max_epochs: usize,
    /// Learning rate, told to the callbacks.
    pub learning_rate: f32,
}

impl Default for TrainerConfig {
    /// One epoch, at a rate of 0.001.
    fn default() -> Self {
        Self {
            max_epochs: 1,
            learning_rate: 1e-3,
        }
    }
}

/// Any error of a training step.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What is trained: anything that can take a step on a batch, a closure from batch to loss for one.
pub trait Model<B: ?Sized> {
    /// Takes one step and returns its loss.
    fn train_step(&self, batch: &B) -> Result<f32, BoxError>;
}

impl<B: ?Sized, F: Fn(&B) -> f32> Model<B> for F {
    fn train_step(&self, batch: &B) -> Result<f32, BoxError> {
        Ok(self(batch))
    }
}

/// What is trained on: batches that can be walked over again and again.
pub trait Dataset {
    /// One step's worth of data.
    type Batch;
    /// How many batches an epoch has.
    fn batch_count(&self) -> usize;
    /// The batches of an epoch, in order.
    fn batches(&self) -> Box<dyn Iterator<Item = &Self::Batch> + '_>;
}

impl<B> Dataset for [B] {
    type Batch = B;
    fn batch_count(&self) -> usize {
        self.len()
    }
    fn batches(&self) -> Box<dyn Iterator<Item = &B> + '_> {
        Box::new(self.iter())
    }
}

impl<B> Dataset for Vec<B> {
    type Batch = B;
    fn batch_count(&self) -> usize {
        self.len()
    }
    fn batches(&self) -> Box<dyn Iterator<Item = &B> + '_> {
        Box::new(self.iter())
    }
}

/// Why training failed. Being stopped by a callback is no failure.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// There is nothing to train on.
    #[error("the dataset has no batches")]
    EmptyDataset,
    /// The model could not take a step.
    #[error("step {step} of epoch {epoch} failed")]
    Step {
        /// Epoch, from 0.
        epoch: usize,
        /// Step inside it, from 0.
        step: usize,
        /// What the model says.
        source: BoxError,
    },
}

/// How training went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainReport {
    /// Steps taken.
    pub steps: usize,
    /// Loss of the last step; `None` if there was none.
    pub last_loss: Option<f32>,
    /// Smallest loss of any step.
    pub best_loss: Option<f32>,
    /// Name of the callback that stopped it; `None`: it ran to its end.
    pub stopped_by: Option<String>,
}

/// Walks a model over a dataset and lets callbacks look on.
pub struct Trainer {
    config: TrainerConfig,
    callbacks: Vec<Box<dyn TrainerCallback>>,
}

impl Trainer {
    /// A trainer without callbacks.
    pub fn new(config: TrainerConfig) -> Self {
        Self {
            config,
            callbacks: Vec::new(),
        }
    }

    /// Adds a callback. They are called in the order in which they were added; the first that stops is the last asked.
    pub fn add_callback(&mut self, callback: impl TrainerCallback + 'static) {
        self.callbacks.push(Box::new(callback));
    }

    /// Trains until the epochs are over, a callback stops it, or a step fails. The callbacks learn of the end in each
    /// case.
    pub fn fit<M, D>(&mut self, model: &M, dataset: &D) -> Result<TrainReport, TrainError>
    where
        D: Dataset + ?Sized,
        M: Model<D::Batch> + ?Sized,
    {
        let mut run = Run::new(self, dataset.batch_count());
        if run.context.steps_per_epoch == 0 {
            return Err(TrainError::EmptyDataset);
        }
        let outcome = match run.ask(|callback, context| callback.on_train_begin(context)) {
            Flow::Stop => Ok(()),
            Flow::Go | Flow::SkipEpoch => run.epochs(model, dataset),
        };
        run.end();
        outcome.map(|()| run.report)
    }
}

/// One call of [`Trainer::fit`].
struct Run<'a> {
    callbacks: &'a mut [Box<dyn TrainerCallback>],
    context: CallbackContext,
    report: TrainReport,
    started_at: std::time::Instant,
}

enum Flow {
    Go,
    SkipEpoch,
    Stop,
}

impl<'a> Run<'a> {
    fn new(trainer: &'a mut Trainer, steps_per_epoch: usize) -> Self {
        Self {
            callbacks: &mut trainer.callbacks,
            context: CallbackContext {
                max_epochs: trainer.config.max_epochs,
                lr: trainer.config.learning_rate,
                steps_per_epoch,
                ..CallbackContext::default()
            },
            report: TrainReport::default(),
            started_at: clock::instant(),
        }
    }

    fn epochs<M, D>(&mut self, model: &M, dataset: &D) -> Result<(), TrainError>
    where
        D: Dataset + ?Sized,
        M: Model<D::Batch> + ?Sized,
    {
        for epoch in 0..self.context.max_epochs {
            self.context.epoch = epoch;
            self.context.step = 0;
            let flow = match self.ask(|callback, context| callback.on_epoch_begin(context)) {
                Flow::Go => self.steps(model, dataset)?,
                other => other,
            };
            if let Flow::Stop = flow {
                return Ok(());
            }
            if let Flow::Stop = self.ask(|callback, context| callback.on_epoch_end(context)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes the steps of one epoch.
    fn steps<M, D>(&mut self, model: &M, dataset: &D) -> Result<Flow, TrainError>
    where
        D: Dataset + ?Sized,
        M: Model<D::Batch> + ?Sized,
    {
        for (step, batch) in dataset.batches().enumerate() {
            self.context.step = step;
            match self.ask(|callback, context| callback.on_step_begin(context)) {
                Flow::Go => {}
                other => return Ok(other),
            }
            let loss = model.train_step(batch).map_err(|source| {
                let epoch = self.context.epoch;
                TrainError::Step {
                    epoch,
                    step,
                    source,
                }
            })?;
            self.took_step(loss);
            match self.ask(|callback, context| callback.on_step_end(context)) {
                Flow::Go => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Go)
    }

    fn took_step(&mut self, loss: f32) {
        self.context.global_step += 1;
        self.context.loss = loss;
        // A loss that is not a number is never the best one.
        let best = self.context.best_loss.map_or(loss, |best| best.min(loss));
        self.context.best_loss = (!best.is_nan()).then_some(best);
        self.report.steps += 1;
        self.report.last_loss = Some(loss);
        self.report.best_loss = self.context.best_loss;
    }

    /// Asks the callbacks in order. The first that does not want to continue decides.
    fn ask(
        &mut self,
        call: impl Fn(&mut dyn TrainerCallback, &CallbackContext) -> CallbackAction,
    ) -> Flow {
        self.context.elapsed_secs = self.started_at.elapsed().as_secs_f64();
        for callback in self.callbacks.iter_mut() {
            match call(callback.as_mut(), &self.context) {
                CallbackAction::Continue => {}
                CallbackAction::SkipEpoch => return Flow::SkipEpoch,
                CallbackAction::Stop => {
                    self.report.stopped_by = Some(callback.name().to_owned());
                    return Flow::Stop;
                }
            }
        }
        Flow::Go
    }

    fn end(&mut self) {
        self.context.elapsed_secs = self.started_at.elapsed().as_secs_f64();
        for callback in self.callbacks.iter_mut() {
            callback.on_train_end(&self.context);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Writes down what it is told, and answers `action` at the given point.
    struct Scribe {
        heard: Arc<Mutex<Vec<String>>>,
        at: &'static str,
        action: CallbackAction,
    }

    impl Scribe {
        fn hear(&self, what: &str, context: &CallbackContext) -> CallbackAction {
            let word = format!("{what}{}.{}", context.epoch, context.step);
            let action = if word == self.at {
                self.action
            } else {
                CallbackAction::Continue
            };
            self.heard.lock().unwrap().push(word);
            action
        }
    }

    impl TrainerCallback for Scribe {
        fn on_train_begin(&mut self, context: &CallbackContext) -> CallbackAction {
            self.hear("begin", context)
        }
        fn on_epoch_begin(&mut self, context: &CallbackContext) -> CallbackAction {
            self.hear("epoch", context)
        }
        fn on_step_begin(&mut self, context: &CallbackContext) -> CallbackAction {
            self.hear("step", context)
        }
        fn on_step_end(&mut self, context: &CallbackContext) -> CallbackAction {
            self.hear("stepped", context)
        }
        fn on_epoch_end(&mut self, context: &CallbackContext) -> CallbackAction {
            self.hear("over", context)
        }
        fn on_train_end(&mut self, context: &CallbackContext) {
            self.hear("end", context);
        }
        fn name(&self) -> &'static str {
            "scribe"
        }
    }

    /// Two epochs of two batches; what the callback hears when it answers `action` at `at`.
    fn check(at: &'static str, action: CallbackAction, heard: &str) -> TrainReport {
        let mut trainer = Trainer::new(TrainerConfig {
            max_epochs: 2,
            ..TrainerConfig::default()
        });
        let words = Arc::new(Mutex::new(Vec::new()));
        trainer.add_callback(Scribe {
            heard: words.clone(),
            at,
            action,
        });
        let report = trainer
            .fit(&|batch: &f32| batch / 2.0, &vec![4.0, 2.0])
            .expect("no step fails");
        assert_eq!(words.lock().unwrap().join(" "), heard);
        report
    }

    #[test]
    fn callbacks_hear_the_whole_training_in_order() {
        let report = check(
            "",
            CallbackAction::Continue,
            "begin0.0 epoch0.0 step0.0 stepped0.0 step0.1 stepped0.1 over0.1 \
             epoch1.0 step1.0 stepped1.0 step1.1 stepped1.1 over1.1 end1.1",
        );
        let (last_loss, best_loss) = (Some(1.0), Some(1.0));
        assert_eq!(
            report,
            TrainReport {
                steps: 4,
                last_loss,
                best_loss,
                stopped_by: None
            }
        );
    }

    #[test]
    fn a_callback_can_stop_or_skip_and_always_hears_the_end() {
        let stopped = check("begin0.0", CallbackAction::Stop, "begin0.0 end0.0");
        assert_eq!(
            (stopped.steps, stopped.stopped_by.as_deref()),
            (0, Some("scribe"))
        );
        let stopped = check(
            "step0.1",
            CallbackAction::Stop,
            "begin0.0 epoch0.0 step0.0 stepped0.0 step0.1 end0.1",
        );
        assert_eq!((stopped.steps, stopped.last_loss), (1, Some(2.0)));
        let skipped = check(
            "stepped0.0",
            CallbackAction::SkipEpoch,
            "begin0.0 epoch0.0 step0.0 stepped0.0 over0.0 \
             epoch1.0 step1.0 stepped1.0 step1.1 stepped1.1 over1.1 end1.1",
        );
        assert_eq!((skipped.steps, skipped.stopped_by), (3, None));
    }

    #[test]
    fn a_step_that_fails_is_named_and_the_callbacks_hear_the_end() {
        struct Fails;
        impl Model<f32> for Fails {
            fn train_step(&self, _: &f32) -> Result<f32, BoxError> {
                Err("out of memory".into())
            }
        }
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut trainer = Trainer::new(TrainerConfig::default());
        trainer.add_callback(Scribe {
            heard: heard.clone(),
            at: "",
            action: CallbackAction::Continue,
        });
        let error = trainer.fit(&Fails, &vec![1.0]).expect_err("the step fails");
        assert_eq!(error.to_string(), "step 0 of epoch 0 failed");
        assert_eq!(
            heard.lock().unwrap().last().map(String::as_str),
            Some("end0.0")
        );
        assert!(matches!(
            trainer.fit(&Fails, &Vec::<f32>::new()),
            Err(TrainError::EmptyDataset)
        ));
    }
}
