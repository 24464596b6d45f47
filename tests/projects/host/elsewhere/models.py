from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class PersonManager(BaseUserManager["Person"]):
    def create_user(self, email: str, password: str) -> Person:
        person = self.model(email=email)
        person.set_password(password)
        person.save()
        return person


class Person(AbstractBaseUser):
    id = models.BigAutoField(primary_key=True, db_column='the ""key""')
    email = models.EmailField(unique=True, db_column="E-mail; --")
    password = models.CharField(max_length=128, db_column='"pass.word"')
    is_active = models.BooleanField(default=True, db_column="select")

    USERNAME_FIELD = "email"
    objects = PersonManager()

    class Meta:
        db_table = 'Ac counts"."people'

    def __str__(self) -> str:
        return self.email
