"""The application's own tables. Oban's tables are in the same database."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "products"

    name: Mapped[str] = mapped_column(primary_key=True)
    stock: Mapped[int]


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    product: Mapped[str] = mapped_column(ForeignKey(Product.name))
    quantity: Mapped[int]
    email: Mapped[str]
    confirmed: Mapped[bool] = mapped_column(default=False)
    asked_for_review: Mapped[bool] = mapped_column(default=False)
