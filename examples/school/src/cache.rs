//! What the students' service knows of courses: asked of the courses' service, and kept for five minutes or until an event says that it
//! has changed.
//!
//! An answer may be on its way while an event arrives that makes it old. Such an answer must not be kept: the event has passed, and
//! nothing would throw the answer out again before its time. So an answer says of which events it is made, by position, and it is kept only
//! if the events that this cache has seen of the course's partition are among them.
//!
//! Invariant: whatever is kept is at least as new as the newest event that this cache has seen. If events do not come (the cluster is down),
//! what is told is at most [`KEPT`] old.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater::ConsumedRecord;
use highwater_service::{State, View};
use prometheus::{IntCounterVec, Opts, Registry, register_int_counter_vec_with_registry};
use tonic::Status;
use tonic::transport::Channel;

use crate::answers;
use crate::proto::course_service_client::CourseServiceClient;
use crate::proto::{Course, GetCoursesRequest};

/// How long a course is kept.
pub const KEPT: Duration = Duration::from_secs(300);
/// How many courses are kept; the oldest make room.
pub const ENTRIES_MAX: usize = 10_000;

/// A course that is kept, or that there is none.
#[derive(Debug)]
struct Entry {
    course: Option<Course>,
    since: Instant,
}

/// Courses, as the courses' service has told them. As a state of the topic of its events it forgets what these are about.
#[derive(Debug)]
pub struct CourseCache {
    entries: Mutex<HashMap<String, Entry>>,
    /// By partition, the first offset that has not been seen.
    seen: HashMap<u32, u64>,
    looks: IntCounterVec,
}

impl CourseCache {
    /// An empty one, which counts what it is asked in `course_cache_total`.
    ///
    /// # Errors
    /// A registry that has these metrics already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let looks = Opts::new(
            "course_cache_total",
            "Courses that were in the cache, that were not, and that were thrown out by an event.",
        );
        Ok(Self {
            entries: Mutex::default(),
            seen: HashMap::new(),
            looks: register_int_counter_vec_with_registry!(looks, &["outcome"], registry)?,
        })
    }

    /// What is known of a course now: the course, or that there is none. `None` if that has to be asked.
    fn get(&self, id: &str, now: Instant) -> Option<Option<Course>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(id).filter(|entry| now.duration_since(entry.since) < KEPT);
        let outcome = if entry.is_some() { "hit" } else { "miss" };
        self.looks.with_label_values(&[outcome]).inc();
        entry.map(|entry| entry.course.clone())
    }

    /// Keeps what was told of a course, unless it is older than an event that has been seen. `made_of`: the answer's position in the
    /// course's partition.
    fn put(&self, partition: u32, made_of: u64, id: &str, course: Option<Course>, now: Instant) {
        if self.seen.get(&partition).is_some_and(|seen| made_of < *seen) {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(id) {
            let oldest = entries
                .iter()
                .min_by_key(|(_, entry)| entry.since)
                .map(|(id, _)| id.clone());
            oldest.and_then(|oldest| entries.remove(&oldest));
        }
        entries.insert(id.to_owned(), Entry { course, since: now });
    }
}

impl State for CourseCache {
    fn apply(&mut self, partition: u32, records: &[ConsumedRecord]) {
        let entries = self.entries.get_mut().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            let id = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            if id.and_then(|id| entries.remove(id)).is_some() {
                self.looks.with_label_values(&["invalidated"]).inc();
            }
            self.seen.insert(partition, record.offset + 1);
        }
    }
}

/// Courses for who is enrolled in them.
#[derive(Debug, Clone)]
pub struct KnownCourses {
    view: View<CourseCache>,
    service: CourseServiceClient<Channel>,
}

impl KnownCourses {
    /// Behind a cache that follows the events.
    #[must_use]
    pub fn new(view: View<CourseCache>, service: CourseServiceClient<Channel>) -> Self {
        Self { view, service }
    }

    /// The events that it follows.
    #[must_use]
    pub fn view(&self) -> &View<CourseCache> {
        &self.view
    }

    /// What is known of these courses, and how many of them the cache knew. Those that never were are not among them. The courses' service
    /// waits for events that have been seen here until `until`.
    ///
    /// # Errors
    /// That of the courses' service, if something has to be asked of it.
    pub async fn get(&self, ids: &[String], until: Instant) -> Result<(HashMap<String, Course>, u32), Status> {
        let now = Instant::now();
        let mut known = HashMap::new();
        let mut missing = Vec::new();
        for id in ids {
            match self.view.read(|cache| cache.get(id, now)) {
                Some(course) => known.extend(course.map(|course| (id.clone(), course))),
                None => missing.push(id.clone()),
            }
        }
        let cached = (ids.len() - missing.len()) as u32;
        if !missing.is_empty() {
            known.extend(self.ask(missing, now, until).await?);
        }
        Ok((known, cached))
    }

    async fn ask(&self, ids: Vec<String>, now: Instant, until: Instant) -> Result<HashMap<String, Course>, Status> {
        let partitions = self.view.partitions();
        // What has been seen here has happened for whoever reads here.
        let positions = (0..partitions).map(|partition| self.view.position(partition)).collect();
        let request = GetCoursesRequest {
            ids: ids.clone(),
            fresh: Some(answers::fresh_until(positions, until)),
        };
        let answer = self.service.clone().get_courses(request).await;
        let answer = answer
            .map_err(|status| Status::new(status.code(), format!("courses: {}", status.message())))?
            .into_inner();
        let told: HashMap<String, Course> = answer
            .courses
            .into_iter()
            .map(|course| (course.id.clone(), course))
            .collect();
        self.view.read(|cache| {
            for id in &ids {
                let partition = highwater::proto::keys::partition(id.as_bytes(), partitions);
                let made_of = answer.positions.get(partition as usize).copied().unwrap_or(0);
                cache.put(partition, made_of, id, told.get(id).cloned(), now);
            }
        });
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::command::tests::record;

    fn course(title: &str) -> Option<Course> {
        Some(Course {
            id: "logic".to_owned(),
            title: title.to_owned(),
            ..Course::default()
        })
    }

    fn cache() -> CourseCache {
        CourseCache::new(&Registry::new()).unwrap()
    }

    #[test]
    fn a_course_is_kept_for_five_minutes() {
        let (cache, now) = (cache(), Instant::now());
        assert_eq!(cache.get("logic", now), None);
        cache.put(1, 0, "logic", course("Logic"), now);
        cache.put(1, 0, "magic", None, now);
        assert_eq!(
            cache.get("logic", now + KEPT - Duration::from_secs(1)),
            Some(course("Logic"))
        );
        assert_eq!(cache.get("magic", now), Some(None), "that there is none is known, too");
        assert_eq!(cache.get("logic", now + KEPT), None);
    }

    #[test]
    fn an_event_throws_out_what_it_is_about() {
        let (mut cache, now) = (cache(), Instant::now());
        cache.put(1, 0, "logic", course("Logic"), now);
        cache.put(1, 0, "magic", course("Magic"), now);
        cache.apply(1, &[record(Some("logic"), "{}", 0)]);
        assert_eq!(cache.get("logic", now), None);
        assert!(cache.get("magic", now).is_some());
        assert_eq!(cache.looks.with_label_values(&["invalidated"]).get(), 1);
    }

    #[test]
    fn an_answer_that_is_older_than_an_event_is_not_kept() {
        let (mut cache, now) = (cache(), Instant::now());
        // Asked at 3; while the answer was on its way, the event at 3 came.
        cache.apply(1, &[record(Some("logic"), "{}", 3)]);
        cache.put(1, 3, "logic", course("of before"), now);
        assert_eq!(cache.get("logic", now), None);
        cache.put(1, 4, "logic", course("of now"), now);
        assert_eq!(cache.get("logic", now), Some(course("of now")));
        cache.put(2, 0, "magic", course("Magic"), now);
        assert!(
            cache.get("magic", now).is_some(),
            "another partition has positions of its own"
        );
    }

    #[test]
    fn the_oldest_makes_room() {
        let (cache, now) = (cache(), Instant::now());
        for number in 0..ENTRIES_MAX as u64 {
            cache.put(0, 0, &format!("c{number}"), None, now + Duration::from_micros(number));
        }
        cache.put(0, 0, "more", None, now);
        assert_eq!(cache.entries.lock().unwrap().len(), ENTRIES_MAX);
        assert_eq!(cache.get("c0", now), None);
        assert!(cache.get("c1", now).is_some() && cache.get("more", now).is_some());
    }
}
