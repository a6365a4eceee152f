-- The newest link with which a person who has forgotten their password chooses a new one. It is deleted
-- when it was used.
create table password_links (
    user_id bigint primary key references users (id) on delete cascade,
    token_hash bytea not null unique,
    made_at bigint not null
);
-- Lists the moderators without reading all users.
create index users_moderators on users (name) where moderator_at is not null;
