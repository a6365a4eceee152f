-- Links with which people who have forgotten their password choose a new one.

create table password_links (
    -- The newest link of this person. It is deleted when it was used.
    user_id integer primary key references users (id) on delete cascade,
    token_hash blob not null unique,
    made_at integer not null
);
-- Lists the moderators without reading all users.
create index users_moderators on users (name) where moderator_at is not null;
