"""The pages' addresses: ``path("messages/", include("django_tenant_messaging.urls"))``."""

from __future__ import annotations

from django.urls import path

from .web import memberships, messages, notifications, rooms

app_name = "tenant_messaging"
urlpatterns = [
    path("", rooms.room_list, name="room-list"),
    path("rooms/create/", rooms.create_room, name="create-room"),
    path("rooms/direct/", rooms.open_direct, name="open-direct"),
    path("rooms/<int:room_id>/", messages.room, name="room"),
    path("rooms/<int:room_id>/name/", rooms.rename_room, name="rename-room"),
    path("rooms/<int:room_id>/members/", memberships.members, name="members"),
    path("rooms/<int:room_id>/leave/", memberships.leave_room, name="leave-room"),
    path("rooms/<int:room_id>/rejoin/", memberships.rejoin_room, name="rejoin-room"),
    path("notifications/read/", notifications.mark_notifications_read, name="mark-notifications-read"),
]
