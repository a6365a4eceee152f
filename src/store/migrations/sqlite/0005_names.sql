-- Display names: who is called so, whatever the case, and what looks the same.

alter table users add column display_key text;   -- display_name without regard to case
-- The same for all names that look alike in small letters, and in capitals.
alter table users add column display_look text;
alter table users add column display_look_capitals text;
create unique index users_display_look on users (display_look) where display_look is not null;
create unique index users_display_look_capitals on users (display_look_capitals)
    where display_look_capitals is not null;
create index users_display_key on users (display_key) where display_key is not null;
-- Either look of a user name, which is of small letters and digits.
create index users_look on users (
    replace(replace(replace(replace(name, 'm', 'rn'), '0', 'o'), '1', 'l'), 'i', 'l'));
