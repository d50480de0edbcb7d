//! One item: at the origin that its id names, or at the only one that has it.

use std::{pin::pin, sync::Arc};

use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use proxy_protocol::srs_api::{self, Answer, ItemId, Kind, Target, qualified_id};
use tracing::info;

use super::{
    Answered, Call, OriginApi,
    ask::Question,
    choose::{self, LISTED},
    json_text,
    refusal::Refusal,
};
use crate::origin::Origin;

/// One item, or what there is one of.
pub(super) const ITEM_LIMIT: usize = 1 << 20;

impl OriginApi {
    /// Answers what an item is; a client is kicked by DELETE.
    pub(super) async fn one(&self, call: &Call<'_>, kind: Kind, id: &ItemId) -> Answered {
        let get = call.question(Target::One(kind, id.clone()).to_path(), ITEM_LIMIT);
        let named = id.origin.clone().or_else(|| choose::parameter(call.query, "origin"));
        let origin = match named {
            Some(name) => self.named(&name).await?,
            None => self.search(&get, kind, id, call.is_kick()).await?,
        };
        let answer = if call.is_kick() {
            let kick = Question { method: Method::DELETE, ..get };
            let answer = self.asker.ask(&origin, &kick, srs_api::plain).await?;
            let by = call.client.ip;
            match answer.code {
                0 => info!(id = id.id, origin = %origin.id, %by, "client is kicked"),
                code => info!(id = id.id, origin = %origin.id, %by, code, "origin kicked no client"),
            }
            answer
        } else {
            self.asker.ask(&origin, &get, one_of(kind, &origin)).await?
        };
        Ok(json_text(0, answer.json))
    }

    /// The origin that has an item of this id, if it is certain which one that is.
    async fn search(
        &self,
        get: &Question,
        kind: Kind,
        id: &ItemId,
        must_be_sure: bool,
    ) -> Result<Arc<Origin>, Refusal> {
        let all = self.all().await;
        let (mut having, mut failed) = (Vec::new(), Vec::new());
        let mut answers = pin!(self.asker.ask_all(&all, get, |origin| one_of(kind, origin)));
        while let Some((origin, answer)) = answers.next().await {
            match answer {
                Ok(answer) if answer.code == 0 => having.push(origin),
                Ok(_) => {}
                Err((_, why)) => failed.push(format!("{}: {why}", origin.id)),
            }
        }
        failed.truncate(LISTED);
        match having[..] {
            [_] if must_be_sure && !failed.is_empty() => Err(Refusal::new(
                StatusCode::BAD_GATEWAY,
                format!("another origin may have this id too; name one behind `@`. {}", failed.join("; ")),
            )),
            [origin] => Ok(Arc::clone(origin)),
            [] if failed.is_empty() => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("no origin has the {} {}", kind.one(), id.id),
            )),
            [] => Err(Refusal::new(StatusCode::BAD_GATEWAY, failed.join("; "))),
            _ => {
                let ids = having.iter().take(LISTED).map(|origin| qualified_id(&id.id, &origin.id.0));
                let ids = ids.collect::<Vec<_>>().join(", ");
                Err(Refusal::new(StatusCode::CONFLICT, format!("several origins have this id: {ids}")))
            }
        }
    }
}

fn one_of(
    kind: Kind,
    origin: &Origin,
) -> impl FnOnce(&[u8]) -> Result<Answer, srs_api::AnswerError> + Send + use<> {
    let origin = origin.id.clone();
    move |body| srs_api::one(kind, body, &origin.0)
}
