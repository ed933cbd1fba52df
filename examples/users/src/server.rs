//! The gRPC service: reads from the state, writes through a conditional append.
//!
//! A read may name positions that the state has to have reached; it waits for them a little, and says how far the state is if that does not
//! help. So a client that has written at one server reads what it wrote at any other.
//!
//! Invariant: an answer that a user was created is given only when it is on the disks of a majority, and this server's own state has it.

use std::sync::Arc;
use std::time::Duration;

use highwater::Outcome;
use highwater_service::telemetry::Telemetry;
use highwater_service::{Behind, Declined, View, Writer, version};
use tokio::task::block_in_place;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::proto::users_server::{Users as Service, UsersServer};
use crate::proto::{
    CreateUserRequest, CreateUserResponse, GetUserRequest, GetUserResponse, GetVersionRequest, GetVersionResponse,
    ListUsersRequest, Position, SearchUsersRequest, User, UserPage,
};
use crate::rules::Problem;
use crate::users::{Refusal, USERS_MAX, Users, Wanted};
use crate::{days, events, rules};

/// The largest request, bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// How many users a page has at most.
const PAGE_SIZE_MAX: u32 = 1000;
/// How many users a page has if nothing is said.
const PAGE_SIZE: u32 = 100;
/// How many positions a read may name.
const MIN_POSITIONS_MAX: usize = 64;
/// How long a read waits for the state to get to the positions that it names.
const READ_WAIT: Duration = Duration::from_secs(5);

/// One server. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct Server {
    writer: Arc<Writer<Users>>,
    telemetry: Telemetry,
}

/// How `UNAVAILABLE` begins after a write that has not happened and will not happen.
pub(crate) const NOT_CREATED: &str = "the user has not been created";
/// How it begins if that is not known.
pub(crate) const PERHAPS_CREATED: &str = "the user may have been created";

impl Server {
    /// A server of the writer's state, which is up to date.
    #[must_use]
    pub fn new(writer: Writer<Users>, telemetry: Telemetry) -> Self {
        Self {
            writer: Arc::new(writer),
            telemetry,
        }
    }

    /// As a service of gRPC.
    #[must_use]
    pub fn service(self) -> UsersServer<Self> {
        UsersServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    fn view(&self) -> &View<Users> {
        self.writer.view()
    }

    async fn create(&self, request: CreateUserRequest) -> Result<CreateUserResponse, Status> {
        let user = rules::user(request, days::now_ms()).map_err(invalid)?;
        let partition = events::partition(&user.email, self.view().partitions());
        let record = events::created(&user);
        let decide = |users: &Users| {
            users.admit(&user.email, USERS_MAX)?;
            Ok(vec![record.clone()])
        };
        let offset = self.writer.decide(partition, decide).await.map_err(declined)?;
        let position = Position {
            partition,
            offset: offset + 1,
        };
        Ok(CreateUserResponse {
            user: Some(user),
            position: Some(position),
        })
    }

    async fn get(&self, request: GetUserRequest) -> Result<GetUserResponse, Status> {
        let email = rules::email(&request.email).map_err(invalid)?;
        self.reach(&request.min_positions).await?;
        match self.view().read(|users| users.get(&email).cloned()) {
            Some(user) => Ok(GetUserResponse { user: Some(user) }),
            None => Err(Status::not_found(format!(
                "there is no user with the e-mail address {email}"
            ))),
        }
    }

    async fn search(&self, request: SearchUsersRequest) -> Result<UserPage, Status> {
        let wanted = wanted(&request).map_err(invalid)?;
        let today = days::of_ms(days::now_ms());
        let page = Page::new(request.page_size, &request.page_token).map_err(invalid)?;
        self.reach(&request.min_positions).await?;
        Ok(self.page(&page, |user| wanted.matches(user, today)))
    }

    async fn list(&self, request: ListUsersRequest) -> Result<UserPage, Status> {
        let page = Page::new(request.page_size, &request.page_token).map_err(invalid)?;
        self.reach(&request.min_positions).await?;
        Ok(self.page(&page, |_| true))
    }

    fn page(&self, page: &Page, is_wanted: impl Fn(&User) -> bool) -> UserPage {
        // Taken before the state is looked at: the state is there or further.
        let positions = (0..self.view().partitions()).map(|partition| Position {
            partition,
            offset: self.view().position(partition),
        });
        let positions = positions.collect();
        // It may look at all users.
        let (users, has_more) =
            block_in_place(|| self.view().read(|users| users.page(&page.after, page.size, is_wanted)));
        let last = users.last().filter(|_| has_more);
        UserPage {
            next_page_token: last.map(|user| user.email.clone()).unwrap_or_default(),
            positions,
            users,
        }
    }

    /// Waits until the state has reached the positions.
    async fn reach(&self, positions: &[Position]) -> Result<(), Status> {
        if positions.len() > MIN_POSITIONS_MAX {
            let problem = format!("there are {}; at most {MIN_POSITIONS_MAX} are allowed", positions.len());
            return Err(invalid(Problem::new("min_positions", problem)));
        }
        let partitions = self.view().partitions();
        if let Some(unknown) = positions.iter().find(|position| position.partition >= partitions) {
            let problem = format!(
                "there is no partition {}; there are {partitions}, from 0",
                unknown.partition
            );
            return Err(invalid(Problem::new("min_positions", problem)));
        }
        let deadline = Instant::now() + READ_WAIT;
        for position in positions {
            let left = deadline.saturating_duration_since(Instant::now());
            self.view()
                .reach(position.partition, position.offset, left)
                .await
                .map_err(behind)?;
        }
        Ok(())
    }
}

/// Which part of the users is to be shown.
struct Page {
    /// The last address of the page before.
    after: String,
    size: usize,
}

impl Page {
    fn new(size: u32, token: &str) -> Result<Self, Problem> {
        if size > PAGE_SIZE_MAX {
            return Err(Problem::new(
                "page_size",
                format!("{size} is more than {PAGE_SIZE_MAX}"),
            ));
        }
        let size = if size == 0 { PAGE_SIZE } else { size };
        let after = match token {
            "" => String::new(),
            token => rules::email(token).map_err(|_| Problem::new("page_token", "is not from a page before"))?,
        };
        Ok(Self {
            after,
            size: size as usize,
        })
    }
}

fn wanted(request: &SearchUsersRequest) -> Result<Wanted, Problem> {
    let name = request
        .name
        .as_deref()
        .map(|part| rules::text("name", part, rules::NAME_PART_LETTERS_MAX));
    let wanted = Wanted {
        name: name.transpose()?.map(|part| part.to_lowercase()),
        age_from: request.age_from.map(|age| rules::age("age_from", age)).transpose()?,
        age_to: request.age_to.map(|age| rules::age("age_to", age)).transpose()?,
    };
    match (&wanted.name, wanted.age_from, wanted.age_to) {
        (None, None, None) => Err(Problem::new("name", "a name, age_from or age_to is wanted")),
        (_, Some(from), Some(to)) if from > to => {
            Err(Problem::new("age_from", format!("{from} is more than age_to, {to}")))
        }
        _ => Ok(wanted),
    }
}

fn invalid(problem: Problem) -> Status {
    Status::invalid_argument(problem.to_string())
}

fn behind(behind: Behind) -> Status {
    Status::unavailable(format!("this server is not that far yet: {behind}"))
}

fn declined(declined: Declined<Refusal>) -> Status {
    match declined {
        Declined::Refused(exists @ Refusal::Exists(_)) => Status::already_exists(exists.to_string()),
        Declined::Refused(full @ Refusal::Full { .. }) => Status::resource_exhausted(full.to_string()),
        Declined::Busy | Declined::Late => Status::unavailable(format!("{NOT_CREATED}: {declined}")),
        Declined::Failed(error) if error.outcome() == Outcome::NotApplied => {
            Status::unavailable(format!("{NOT_CREATED}: {error}"))
        }
        Declined::Failed(error) => Status::unavailable(format!("{PERHAPS_CREATED}: {error}")),
        Declined::Behind(behind) => Status::unavailable(format!("{PERHAPS_CREATED}: {behind}")),
    }
}

#[tonic::async_trait]
impl Service for Server {
    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<CreateUserResponse>, Status> {
        let counted = self.telemetry.request("create_user");
        counted.answered(self.create(request.into_inner()).await.map(Response::new))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let counted = self.telemetry.request("get_user");
        counted.answered(self.get(request.into_inner()).await.map(Response::new))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<UserPage>, Status> {
        let counted = self.telemetry.request("list_users");
        counted.answered(self.list(request.into_inner()).await.map(Response::new))
    }

    async fn search_users(&self, request: Request<SearchUsersRequest>) -> Result<Response<UserPage>, Status> {
        let counted = self.telemetry.request("search_users");
        counted.answered(self.search(request.into_inner()).await.map(Response::new))
    }

    async fn get_version(&self, _: Request<GetVersionRequest>) -> Result<Response<GetVersionResponse>, Status> {
        let response = GetVersionResponse {
            version: version::VERSION.to_owned(),
            commit: version::COMMIT.to_owned(),
            date: version::DATE.to_owned(),
        };
        self.telemetry
            .request("get_version")
            .answered(Ok(Response::new(response)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn problem(request: SearchUsersRequest) -> String {
        wanted(&request).unwrap_err().to_string()
    }

    #[test]
    fn a_search_without_sense_is_refused() {
        let ages = |age_from, age_to| SearchUsersRequest {
            age_from,
            age_to,
            ..Default::default()
        };
        assert_eq!(problem(ages(None, None)), "name: a name, age_from or age_to is wanted");
        assert_eq!(problem(ages(Some(3), Some(2))), "age_from: 3 is more than age_to, 2");
        assert_eq!(problem(ages(None, Some(201))), "age_to: 201 is more than 200");
        let name = Some(" ".to_owned());
        let blank = problem(SearchUsersRequest {
            name,
            ..ages(None, None)
        });
        assert_eq!(blank, "name: has 0 characters; 1 to 201 are allowed");
        assert!(wanted(&ages(Some(2), Some(2))).is_ok());
    }

    #[test]
    fn a_refusal_has_the_code_of_the_contract() {
        let full = Refusal::Full { users: 4, users_max: 3 };
        let status = declined(Declined::Refused(full));
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(status.message().contains("at most 3 are allowed"), "{status}");
        let status = declined(Declined::Refused(Refusal::Exists("a@x".to_owned())));
        assert_eq!(status.code(), tonic::Code::AlreadyExists);
    }

    #[test]
    fn a_page_has_a_limit_and_begins_behind_an_address() {
        assert_eq!(Page::new(0, "").unwrap().size, 100);
        assert_eq!(Page::new(1000, "A@x").unwrap().after, "a@x");
        assert_eq!(Page::new(1001, "").err().unwrap().field, "page_size");
        assert_eq!(Page::new(1, "a").err().unwrap().field, "page_token");
    }
}
