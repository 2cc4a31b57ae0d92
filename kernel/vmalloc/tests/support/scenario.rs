use super::{Plant, Rig, story};
use vmalloc::Config;

#[derive(Clone, Copy)]
pub enum Schedules {
    Random,
    /// Finds long waits at one place.
    Priorities,
}

fn nr_schedules(default: usize) -> usize {
    std::env::var("SHUTTLE_SCHEDULES")
        .ok()
        .and_then(|nr| nr.parse().ok())
        .unwrap_or(default)
}

#[derive(Clone, Copy)]
pub struct Scenario {
    pub config: Config,
    pub schedules: usize,
    pub body: fn(&Rig),
}

impl Scenario {
    fn run(self, plant: Plant, schedules: Schedules, nr: usize) {
        use shuttle::scheduler::{PctScheduler, RandomScheduler};
        story::install();
        let mut config = shuttle::Config::new();
        config.stack_size = 1 << 18;
        config.ungraceful_shutdown_config.immediately_return_on_panic = true;
        config.failure_persistence = shuttle::FailurePersistence::None;
        let work = move || {
            let rig = Rig::new(plant, self.config);
            (self.body)(&rig);
            rig.assert_empty();
        };
        match schedules {
            Schedules::Random => shuttle::Runner::new(RandomScheduler::new(nr), config).run(work),
            Schedules::Priorities => shuttle::Runner::new(PctScheduler::new(4, nr), config).run(work),
        };
    }

    pub fn holds(self) {
        let nr = nr_schedules(self.schedules);
        self.run(Plant::Nothing, Schedules::Random, nr - nr / 3);
        self.run(Plant::Nothing, Schedules::Priorities, nr / 3);
    }

    /// A map may spin on the mark of a link that is being removed: no schedule may starve the other
    /// thread.
    pub fn holds_where_some_spin(self) {
        self.run(Plant::Nothing, Schedules::Random, nr_schedules(self.schedules));
    }

    /// With one of these words.
    pub fn catches(self, plant: Plant, words: &[&str]) {
        self.catches_on(Schedules::Random, plant, words);
    }

    pub fn catches_on(self, schedules: Schedules, plant: Plant, words: &[&str]) {
        story::listen();
        let caught = std::panic::catch_unwind(|| self.run(plant, schedules, 200 * self.schedules));
        let story = story::heard();
        assert!(caught.is_err(), "{plant:?} is not noticed on any schedule");
        assert!(
            words.iter().any(|word| story.contains(word)),
            "{plant:?} is noticed, but not as {words:?}: {story}"
        );
    }
}
